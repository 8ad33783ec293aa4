"""Fitting temperatures and thresholds on a calibration split."""

from offramp.calibration.accumulated_gap import tune_accumulated_gap
from offramp.calibration.guarantee import tune_conformal, tune_with_guarantee
from offramp.calibration.sweeps import CalibrationSweep, sweep
from offramp.calibration.target import TuningTarget
from offramp.calibration.temperatures import Reliability, ece, fit_temperatures, reliability
from offramp.calibration.thresholds import refuse_if_calibrated, tune_threshold
from offramp.calibration.tuning import tune

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
    "tune_accumulated_gap",
    "tune_conformal",
    "tune_threshold",
    "tune_with_guarantee",
]
