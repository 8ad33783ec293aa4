"""Fitting temperatures and thresholds on a calibration split."""

from offramp.calibration.guarantee import tune_conformal, tune_with_guarantee
from offramp.calibration.temperatures import Reliability, ece, fit_temperatures, reliability
from offramp.calibration.thresholds import CalibrationSweep, refuse_if_calibrated, sweep, tune_threshold
from offramp.calibration.tuning import TuningTarget, tune

__all__ = [
    "CalibrationSweep",
    "Reliability",
    "TuningTarget",
    "ece",
    "fit_temperatures",
    "refuse_if_calibrated",
    "reliability",
    "sweep",
    "tune",
    "tune_conformal",
    "tune_threshold",
    "tune_with_guarantee",
]
