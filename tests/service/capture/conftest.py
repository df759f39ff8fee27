"""The command in this process, for the tests of `line-ood captured`."""

from tests.calibration.command import call

__all__ = ["call"]  # a fixture
