"""Feature hooks, teachers, weight schedules, the distillation's handlers, calibration and prompt tuning."""

from dcd_ext.distill.handler import DistillationHandler
from dcd_ext.distill.prompt_tuning import PromptTuner, tune_prompts
from dcd_ext.distill.start import start_from_teacher
from dcd_ext.distill.teacher import load_teacher
from dcd_ext.distill.teacher_check import TeacherCheck

__all__ = ["DistillationHandler", "PromptTuner", "TeacherCheck", "load_teacher", "start_from_teacher", "tune_prompts"]
