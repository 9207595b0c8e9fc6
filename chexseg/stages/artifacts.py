"""File names that stages write, for code that reads them without running a stage."""

CLASSIFIER_WEIGHTS = "classifier.safetensors"
ENCODER_WEIGHTS = "encoder.safetensors"
#: Model of the GPU of the workers that train, which their stage's own process may not see.
GPU = ".gpu"
#: Training curves: one entry per epoch of a fit, checkpoint of a classifier, or hundredth of the
#: steps of MoCo and IRNet.
HISTORY = "history.json"
IRNET_WEIGHTS = "irnet.safetensors"
#: Observation -> false and true positive rates of a classifier.
ROC = "roc.json"
SEGMENTER_WEIGHTS = "segmenter.safetensors"
#: Pathology -> threshold of its weak masks.
THRESHOLDS = "thresholds.json"
#: Pixels per image and pathology, and the predicted masks (stages.scoring.mask_counts).
COUNTS = "counts.parquet"
PREDICTIONS = "predictions.parquet"
