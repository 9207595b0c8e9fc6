"""Names of the files that stages write, for those who read them without running a stage."""

CLASSIFIER_WEIGHTS = "classifier.safetensors"
ENCODER_WEIGHTS = "encoder.safetensors"
IRNET_WEIGHTS = "irnet.safetensors"
SEGMENTER_WEIGHTS = "segmenter.safetensors"
#: Pathology -> threshold of weak masks.
THRESHOLDS = "thresholds.json"
#: Pixels per image and pathology, and predicted masks (stages.scoring.mask_counts).
COUNTS = "counts.parquet"
PREDICTIONS = "predictions.parquet"
