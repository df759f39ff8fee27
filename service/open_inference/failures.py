"""An output tensor has an element for every image, so that one which cannot be scored fails the request."""

from __future__ import annotations

from collections.abc import Sequence

from scoring.errors import LineOodError
from service.batcher import Answer, Outcome
from service.problems import InferenceError, NotReadyError, Problem, ServiceError, SomeImagesFailedError, describe

TOLD = 10  # images whose failures stand in the text of the error, which is all that tritonclient shows


def all_scored(outcomes: Sequence[Outcome]) -> list[Answer]:
    """The answers, if every image has one; the error of a single image is the request's.

    Raises:
        LineOodError: some image has none; says which, and why.
    """
    errors = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, LineOodError)}
    if not errors:
        return [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if len(outcomes) == 1:
        raise errors[0]
    raise _failure({index: describe(error) for index, error in errors.items()}, errors, len(outcomes))


def _failure(problems: dict[int, Problem], errors: dict[int, LineOodError], count: int) -> LineOodError:
    for error in errors.values():
        if isinstance(error, NotReadyError):  # it is not about that image
            return error
    told = [f"image {index}: {problem.detail}" for index, problem in list(problems.items())[:TOLD]]
    if len(problems) > TOLD:
        told.append(f"and {len(problems) - TOLD} more")
    ours = any(problem.kind.status >= 500 for problem in problems.values())
    failure: ServiceError = (InferenceError if ours else SomeImagesFailedError)(
        f"{len(problems)} of {count} images could not be scored, so none is answered: {'; '.join(told)}"
    )
    failure.errors = [problem.of_image(index) for index, problem in problems.items()]
    return failure
