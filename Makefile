# Each target sets up its own virtual environment; Python 3.11 or later is all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test lint man clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

man: $(READY)
	mkdir -p build/man
	$(BIN)/python -m cramzip.app.manual > build/man/cramzip.1

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# The figures and tables that depend on the built-in model or on the code. What was measured with other models stays.
# `make -n figures` shows the commands. Minutes are those of two cores without other work; ~ is an estimate.
#
#   figures-bench         1   sizes and seconds of examples/texts, for the README
#   figures-laboratory   40   examples/laboratory, and the profile of the built-in model
#   figures-study       ~10   examples/study: what a quantised vector buys
#   figures-benchmarks   30   examples/benchmarks: speed, and tokens over steps
#   figures-prompts     ~30   examples/study: vectors that are chosen; left out without TRAINING and HELD_OUT
#   figures-codebook    ~15   examples/study: a codebook of them; left out without HELD_OUT
#   figures-card        ~30   the model card of primer; left out without WORK (of the training) and HELD_OUT
#
# TRAINING and HELD_OUT are folders with a folder of texts for each kind. Not made again: the README's sizes of texts that
# are not in the repository (examples/results/sizes_primer.json), and its seconds.
FIGURES = figures-bench figures-laboratory figures-study figures-benchmarks figures-prompts figures-codebook figures-card
NOVELS ?= cramzip/laboratory/books.txt
MADE = build/figures
RUN = $(BIN)/python
OTHER_MODELS = sed '/"model": "builtin:/d'

.PHONY: figures $(FIGURES)

figures: $(FIGURES)

$(FIGURES): $(READY) | $(MADE)/laboratory

$(MADE)/laboratory:
	mkdir -p $@

figures-bench:
	$(RUN) -m cramzip bench -1 --json examples/texts/* > $(MADE)/bench_primer.json
	cp $(MADE)/bench_primer.json examples/results

figures-laboratory:
	$(OTHER_MODELS) examples/laboratory/findings.jsonl > $(MADE)/laboratory/findings.jsonl
	XDG_CONFIG_HOME=$(abspath $(MADE)) $(RUN) -m cramzip capacity --samples 6 --experiment all --vectors 1,2,4,8 \
		--save-profile --plot -o $(MADE)/laboratory
	cd $(MADE)/laboratory && cp findings.jsonl table.md *.png *.svg $(abspath examples/laboratory)
	cp $(MADE)/cramzip/profiles/*.json cramzip/profiles

figures-study:
	$(OTHER_MODELS) examples/results/vectors_study.jsonl > $(MADE)/vectors_study.jsonl
	$(RUN) examples/study/vectors_study.py measure $(MADE)/vectors_study.jsonl $(NOVELS) \
		--chunks 4 --steps 40 --exact-steps 120 --short-chunks 24
	$(RUN) examples/study/vectors_study.py draw $(MADE)/vectors_study.jsonl examples/study > $(MADE)/vectors_study.md
	cp $(MADE)/vectors_study.jsonl examples/results

figures-benchmarks:
	$(RUN) examples/benchmarks/cramming.py > $(MADE)/cramming.txt
	$(RUN) examples/benchmarks/decoding.py > $(MADE)/decoding.txt
	$(RUN) examples/benchmarks/scaling.py > $(MADE)/scaling.txt
	$(RUN) examples/benchmarks/steps.py --plot examples/benchmarks > $(MADE)/steps.txt
	$(OTHER_MODELS) examples/results/speed.jsonl > $(MADE)/speed.jsonl
	for name in cramming decoding scaling steps; do \
		sed -n '$$s/^{/{"benchmark": "'$$name'", /p' $(MADE)/$$name.txt; done >> $(MADE)/speed.jsonl
	cp $(MADE)/speed.jsonl examples/results

figures-prompts:
ifneq ($(and $(TRAINING),$(HELD_OUT)),)
	rm -f $(MADE)/prompts_study.jsonl
	$(RUN) examples/study/prompts_study.py $(MADE)/prompts_study.jsonl $(TRAINING) $(HELD_OUT)
	cp $(MADE)/prompts_study.jsonl examples/results
else
	@echo "figures-prompts: left out; it needs TRAINING=FOLDER and HELD_OUT=FOLDER"
endif

figures-codebook:
ifneq ($(HELD_OUT),)
	cp examples/results/codebook_study.jsonl $(MADE)
	$(RUN) examples/study/codebook_study.py everything $(MADE)/codebook_study.jsonl $(HELD_OUT) examples/study \
		> $(MADE)/codebook_study.md
	cp $(MADE)/codebook_study.jsonl examples/results
else
	@echo "figures-codebook: left out; it needs HELD_OUT=FOLDER"
endif

figures-card:
ifneq ($(and $(WORK),$(HELD_OUT)),)
	rm -rf $(MADE)/primer
	$(RUN) examples/training/train_model.py export $(WORK) $(MADE)/primer --name Primer \
		--about examples/training/primer.md --valid $(HELD_OUT)
	cd $(MADE)/primer && cp README.md evaluation.json loss.png $(abspath cramzip/models/primer)
else
	@echo "figures-card: left out; it needs WORK=FOLDER and HELD_OUT=FOLDER"
endif

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
