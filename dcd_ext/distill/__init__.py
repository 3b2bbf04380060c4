"""Feature hooks, teachers, weight schedules, the distillation handler, calibration and prompt tuning."""

from dcd_ext.distill.handler import DistillationHandler
from dcd_ext.distill.prompt_tuning import PromptTuner, tune_prompts
from dcd_ext.distill.teacher import load_teacher

__all__ = ["DistillationHandler", "PromptTuner", "load_teacher", "tune_prompts"]
