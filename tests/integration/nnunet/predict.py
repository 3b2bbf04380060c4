"""Label maps and logits of stock nnU-Net without test-time mirroring; runs in the environment of nnU-Net.

python predict.py JOBS.json: a list of objects with model, folds, source, target, patch and logits (both .npy)
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor


def main() -> None:
    for job in json.loads(Path(sys.argv[1]).read_text()):
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(job["model"], tuple(job["folds"]))
        predictor.predict_from_files_sequential(job["source"], job["target"])
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        with torch.no_grad():
            logits = predictor.network.eval()(torch.from_numpy(np.load(job["patch"])))
        np.save(job["logits"], logits.numpy())


if __name__ == "__main__":
    main()
