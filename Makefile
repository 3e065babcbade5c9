# Needs make and a Python of at least 3.11, and nothing else: each target does its own set-up, in .venv. The set-up is
# done again after a change of pyproject.toml or of the version of PYTHON.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CODE := optapi tests examples docs
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
# Says what it does, since a download is silent for long, and what it took.
define INSTALL
@echo "installing what $(@D) needs, $(WHAT): once, in half a minute to two"
@began=$$(date +%s) && $(@D)/bin/python $(PIP_INSTALL) --editable $(WHAT) && echo "installed in $$(($$(date +%s) - began)) s"
endef
# One thread for each of the workers, which are as many as there are cores.
PYTEST := -m pytest --numprocesses auto --dist worksteal --durations 15 --durations-min 2
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test check check-all lint types test-pymc test-pymc-notebook test-dask scipy-suite check-scipy-suite test-compiled test-long test-other test-other-rest test-other-c notebooks check-notebooks docs \
	benchmark clean
.NOTPARALLEL:

help: ## list the targets, with what they take on two cores
	@echo "The first target that is made also installs what it needs, in half a minute to two."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

demo: .venv/demo-$(VERSION) ## train a network on handwritten digits (about 3 s)
	.venv/bin/python examples/quickstart.py

test: .venv/installed-$(VERSION) ## run the tests that compile nothing (about 10 min)
	@echo "the tests that compile nothing, with a worker for each core; then the slowest; about 10 min"
	.venv/bin/python $(PYTEST) -m "not numba and not c and not jax"

check: lint types docs demo check-notebooks check-scipy-suite test-dask test-pymc test-other test-compiled ## all that CI checks, but for make test (about 25 min)

check-all: export OPTAPI_INJECTIONS ?= 10
check-all: check test-pymc-notebook test-long test-other-rest test-other-c ## the same, and all tests that compile on both versions of PyTensor (about 40 min)

lint: .venv/check-$(VERSION) ## check the style (about 2 s)
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)

types: .venv/check-$(VERSION) ## check the types (about 10 s)
	.venv/bin/mypy

scipy-suite: .venv/installed-$(VERSION) ## run SciPy's own tests against optapi.scipy, and write their table (about 80 s)
	.venv/bin/python tests/scipy_suite/run.py

check-scipy-suite: .venv/installed-$(VERSION) ## run them, and compare the table where it is of this SciPy (about 80 s)
	.venv/bin/python tests/scipy_suite/run.py --check

test-compiled: .venv/jax-$(VERSION) ## run the tests that compile with numba, C or JAX (about 5 min)
	.venv/bin/python $(PYTEST) -m "(numba or c or jax) and not long"

test-long: .venv/jax-$(VERSION) ## run those of them that compile longest (about 2 min)
	.venv/bin/python $(PYTEST) -m long

notebooks: .venv/notebooks-$(VERSION) ## run the notebooks of examples, and write them with what they print and draw (about 1 min)
	.venv/bin/python docs/notebooks.py

check-notebooks: .venv/notebooks-$(VERSION) ## run the notebooks, and compare them with their scripts (about 70 s)
	.venv/bin/python docs/notebooks.py --check

docs: .venv/docs-$(VERSION) ## build the site, into docs/_build/html, and check it (about 30 s)
	.venv/bin/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet --jobs auto docs docs/_build/html
	.venv/bin/python docs/check.py docs/_build/html
	@echo docs/_build/html/index.html

benchmark: .venv/benchmark-$(VERSION) ## time Adam steps beside those written by hand, and minimize beside SciPy (about 1 min)
	.venv/bin/python -m pytest tests/benchmarks
	.venv/bin/python tests/benchmarks/ratios.py
	.venv/bin/python tests/benchmarks/numpy_interface.py

clean: ## remove what the other targets made
	rm -rf .venv .venv-other .venv-pymc .venv-pymc-newest .venv-dask .benchmarks docs/_build .mypy_cache .pytest_cache .ruff_cache build *.egg-info examples/*.png
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/demo-$(VERSION): WHAT := '.[demo]'
.venv/demo-$(VERSION): pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(INSTALL)
	@touch $@

.venv/installed-$(VERSION): WHAT := '.[examples,test]'
.venv/installed-$(VERSION): .venv/demo-$(VERSION)
	$(INSTALL)
	@touch $@

.venv/check-$(VERSION) .venv/benchmark-$(VERSION) .venv/jax-$(VERSION) .venv/docs-$(VERSION) .venv/notebooks-$(VERSION): WHAT = '.[$*]'
.venv/check-$(VERSION) .venv/benchmark-$(VERSION) .venv/jax-$(VERSION) .venv/docs-$(VERSION) .venv/notebooks-$(VERSION): .venv/%-$(VERSION): .venv/installed-$(VERSION)
	$(INSTALL)
	@touch $@

# The other version of PyTensor. Python 3.11 has PyTensor 3.0, a later Python has 3.3. OTHER_PYTHON is the first
# interpreter that can make an environment; a shim of pyenv may stand on the PATH and not run, so its root is searched.

ifeq ($(VERSION),3.11)
OTHER_VERSIONS := 3.13 3.12
MISSING := no Python >= 3.12 found, PyTensor 3.3 not tested
else
OTHER_VERSIONS := 3.11
MISSING := no Python 3.11 found, PyTensor 3.0 not tested
endif

FIND_OTHER = for version in $(OTHER_VERSIONS); do \
	for python in python$$version "$$(pyenv root)"/versions/$$version.*/bin/python; do \
	"$$python" -c 'import ensurepip, venv' && echo "$$python" && exit; done; done 2>/dev/null

ifneq ($(filter check check-all test-other test-other-rest test-other-c test-pymc test-pymc-notebook test-dask,$(MAKECMDGOALS)),)
OTHER_PYTHON := $(or $(OTHER_PYTHON),$(shell $(FIND_OTHER)))
endif

# Tests of code that hardly calls PyTensor, and of all rules where some will do.
REST := $(addprefix tests/,test_arguments.py test_injections.py test_packaging.py test_types.py drivers/test_differences.py \
	toolbox/test_files.py toolbox/test_hints.py toolbox/test_plot.py toolbox/test_profiles.py \
	toolbox/test_scipy_interface.py toolbox/test_scipy_programs.py)

ifdef OTHER_PYTHON
test-other: .venv-other/beside-$(VERSION) ## run the tests, also with numba and JAX, on the other version of PyTensor (about 10 min)
	OPTAPI_ROWS=representative .venv-other/bin/python $(PYTEST) -m "not c" $(addprefix --ignore=,$(REST))

test-other-rest: .venv-other/beside-$(VERSION) ## run there the contract of all rules, not of one of each structure, and what that leaves out (about 10 min)
	.venv-other/bin/python $(PYTEST) tests/test_contract.py $(REST)

test-other-c: .venv-other/beside-$(VERSION) ## run those with C on the other version (about 3 min)
	.venv-other/bin/python $(PYTEST) -m c

.venv-other/beside-$(VERSION): WHAT := '.[examples,jax,test]'
.venv-other/beside-$(VERSION): pyproject.toml
	$(OTHER_PYTHON) -m venv --clear .venv-other
	$(INSTALL)
	@touch $@
else
test-other test-other-rest test-other-c:
	@echo "make check: $(MISSING)"
endif

# PyMC needs a Python of at least 3.12, and pins PyTensor; pymc-extras does not take the newest PyMC.
NEW_PYTHON := $(if $(filter 3.11,$(VERSION)),$(OTHER_PYTHON),$(PYTHON))

ifdef NEW_PYTHON
test-pymc: .venv-pymc/beside-$(VERSION) .venv-pymc-newest/beside-$(VERSION) ## run the tests with PyMC: with what fits pymc-extras, and the newest (about 6 min)
	.venv-pymc/bin/python $(PYTEST) -m pymc tests/test_pymc.py tests/test_docs.py
	.venv-pymc-newest/bin/python $(PYTEST) -m "pymc and not numba and not jax" tests/test_pymc.py

test-pymc-notebook: .venv-pymc/beside-$(VERSION) ## run the notebook on PyMC, and compare it with its script (about 2 min)
	.venv-pymc/bin/python docs/notebooks.py --check pymc_models

.venv-pymc/beside-$(VERSION): WHAT := '.[jax,notebooks,pymc,test]' pymc-extras
.venv-pymc-newest/beside-$(VERSION): WHAT := '.[pymc,test]' 'pymc>=6.4'
.venv-pymc/beside-$(VERSION) .venv-pymc-newest/beside-$(VERSION): pyproject.toml
	$(NEW_PYTHON) -m venv --clear $(@D)
	$(INSTALL)
	@touch $@
else
test-pymc test-pymc-notebook:
	@echo "make check: no Python >= 3.12 found, PyMC not tested"
endif

test-dask: .venv-dask/installed-$(VERSION) ## run the tests with dask, on a cluster on this machine (about 1 min)
	.venv-dask/bin/python -m pytest -m dask tests/toolbox/test_distributed.py tests/toolbox/test_engines.py

.venv-dask/installed-$(VERSION): WHAT := '.[dask,test]' pyarrow
.venv-dask/installed-$(VERSION): pyproject.toml
	$(PYTHON) -m venv --clear .venv-dask
	$(INSTALL)
	@touch $@
