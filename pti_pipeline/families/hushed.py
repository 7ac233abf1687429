"""diffusers and transformers, without their progress bars and messages."""

import logging

import diffusers
import transformers

diffusers.utils.logging.disable_progress_bar()
diffusers.utils.logging.set_verbosity(logging.CRITICAL)  # errors that it logs are raised too
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
