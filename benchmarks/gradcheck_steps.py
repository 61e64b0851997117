"""Relative gradient error of the assignment's network as a function of the step h of centred differences.

Uses the plain loss and the loss minus the constant ln K, for an even sample of the elements of each tensor.

    python -m benchmarks.gradcheck_steps [--elements 300]
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from model import gradcheck
from model.loss import character_losses
from model.vocabulary import Vocabulary

STEPS = [10.0**exponent for exponent in np.arange(-7, -1.75, 0.5)]
PICTURE = Path("docs/images/gradcheck-steps.svg")


def plain_losses(network, problem, state, tape):
    logits, _ = network.forward(problem.inputs, state, tape)
    return character_losses(logits, problem.targets)


def errors(problem, elements, losses):
    """{parameter: [relative error at each h]}"""
    original, found = gradcheck.excess_losses, {}
    gradcheck.excess_losses = losses
    try:
        for step in STEPS:
            for result in gradcheck.check(problem, "centred", step, elements):
                found.setdefault(result.name, []).append(result.relative_error)
    finally:
        gradcheck.excess_losses = original
    return found


def draw(plain, excess):
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, found, title in zip(
        figure.subplots(1, 2, sharey=True), (plain, excess), ("loss as it is", "loss less ln K"), strict=True
    ):
        for name in gradcheck.ASSIGNMENT_FIGURES:
            axes.loglog(STEPS, found[name], marker=".", label=name.removeprefix("layer0."))
        axes.set(title=title, xlabel="step h", ylabel="relative error")
        axes.grid(alpha=0.3)
        axes.legend()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=300)
    parser.add_argument("--corpus", type=Path, default=Path("corpora/shakespeare.txt"))
    arguments = parser.parse_args()
    text = arguments.corpus.read_text(encoding="utf-8")
    vocabulary = Vocabulary.from_text(text)
    problem = gradcheck.assignment_problem(vocabulary, vocabulary.encode(text[:26]))
    plain = errors(problem, arguments.elements, plain_losses)
    excess = errors(problem, arguments.elements, gradcheck.excess_losses)
    print("| parameter | h | as it is | less ln K |\n|---|---|---|---|")
    for name in gradcheck.ASSIGNMENT_FIGURES:
        for step, a, b in zip(STEPS, plain[name], excess[name], strict=True):
            print(f"| {name} | {step:.1e} | {a:.1e} | {b:.1e} |")
    draw(plain, excess)


if __name__ == "__main__":
    main()
