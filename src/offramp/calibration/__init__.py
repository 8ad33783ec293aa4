"""Fitting temperatures and thresholds on a calibration split."""

from offramp.calibration.guarantee import tune_conformal, tune_with_guarantee
from offramp.calibration.reliability import Reliability, ece, exit_ece, reliability
from offramp.calibration.temperatures import fit_temperatures
from offramp.calibration.thresholds import CalibrationSweep, refuse_if_calibrated, sweep, tune_threshold
from offramp.calibration.tuning import TuningTarget, tune

__all__ = [
    "CalibrationSweep",
    "Reliability",
    "TuningTarget",
    "ece",
    "exit_ece",
    "fit_temperatures",
    "refuse_if_calibrated",
    "reliability",
    "sweep",
    "tune",
    "tune_conformal",
    "tune_threshold",
    "tune_with_guarantee",
]
