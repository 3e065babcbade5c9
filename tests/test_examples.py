"""The examples run, those that can in a second."""

import runpy
from pathlib import Path

import pytest

import optapi


EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_restricted_boltzmann_machine(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main = runpy.run_path(str(EXAMPLES / "restricted_boltzmann_machine.py"))["main"]
    error, chance = main(epochs=2, path=tmp_path / "picture.png")
    assert error < chance
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_per_parameter_rates(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main = runpy.run_path(str(EXAMPLES / "per_parameter_rates.py"))["main"]
    costs = main(budget=40, grid=(1.0,), names=("sgd", "irprop-", "vsgd"), path=tmp_path / "picture.png")
    assert costs["irprop-"] < 0.2 < costs["sgd"] < 1
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_linear_classifiers(tmp_path, capsys):
    for package in ("matplotlib", "mlxtend", "sklearn", "statsmodels"):
        pytest.importorskip(package)
    example = runpy.run_path(str(EXAMPLES / "linear_classifiers.py"))
    data, losses = (
        {key: example[group][key]} for group, key in (("DATA", "doctor visits"), ("LOSSES", "logistic regression"))
    )
    excesses = example["main"](epochs=3, rows=500, data=data, losses=losses, path=tmp_path / "picture.png")
    assert {rule for _, _, rule in excesses} == {*example["RULES"], "L-BFGS"}
    for excess in excesses.values():
        assert 0 < excess[-1] < excess[0] / 2
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_hessian_free_autoencoder(tmp_path, capsys):
    for package in ("matplotlib", "sklearn"):
        pytest.importorskip(package)
    main = runpy.run_path(str(EXAMPLES / "hessian_free_autoencoder.py"))["main"]
    errors = main(budget=60, seen=600, grids={"adam": (3e-3,)}, path=tmp_path / "picture.png")
    # That of the mean image is 4.7.
    assert all(0.5 < error < 4 for error in errors.values())
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_recurrent_network(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main = runpy.run_path(str(EXAMPLES / "recurrent_network.py"))["main"]
    errors = main(length=5, units=8, batch=60, calls=8, path=tmp_path / "picture.png")
    assert errors[-1] < 0.08 < 1 / 6
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples are not here")
def test_hierarchical_poisson(capsys):
    pytest.importorskip("statsmodels")
    main = runpy.run_path(str(EXAMPLES / "hierarchical_poisson.py"))["main"]
    ours, theirs, apart = main(mode=optapi.PYTHON, count=3)
    assert len(ours) == len(theirs) == 3
    assert all(result.success for result in ours)
    assert max(r.fun for r in ours) - min(r.fun for r in theirs) < 1e-6
    assert apart < 1e-4
    assert "3 starts" in capsys.readouterr().out
