"""Names that other toolkits have for our settings: whoever sets one is told our name."""

SETTING_OF = {
    "learning_rate": "lr", "base_lr": "lr", "init_lr": "lr", "initial_lr": "lr", "max_lr": "lr", "lr0": "lr",
    "label_smoothing": "smoothing", "label_smoothing_factor": "smoothing",
    "model": "name", "model_name": "name", "backbone": "name", "arch": "name", "architecture": "name",
    "image_size": "size", "img_size": "size", "imgsz": "size", "input_size": "size", "resize": "size",
    "val_split": "val_ratio", "valid_ratio": "val_ratio", "validation_split": "val_ratio", "val_size": "val_ratio",
    "valid_size": "val_ratio", "validation_ratio": "val_ratio",
    "amp": "precision", "use_amp": "precision", "fp16": "precision", "bf16": "precision",
    "mixed_precision": "precision",
    "batch": "batch_size", "train_batch_size": "batch_size", "per_device_train_batch_size": "batch_size",
    "criterion": "loss", "loss_fn": "loss", "loss_function": "loss",
    "scheduler": "schedule", "lr_scheduler": "schedule", "lr_scheduler_type": "schedule", "sched": "schedule",
    "num_epochs": "epochs", "n_epochs": "epochs", "max_epochs": "epochs", "num_train_epochs": "epochs",
    "grad_clip": "clip_grad", "clip_grad_norm": "clip_grad", "max_grad_norm": "clip_grad",
    "gradient_clip_val": "clip_grad",
    "early_stopping": "patience", "early_stop": "patience", "early_stopping_patience": "patience",
    "warmup_ratio": "warmup", "warmup_epochs": "warmup", "warmup_steps": "warmup",
    "n_folds": "folds", "num_folds": "folds", "k_folds": "folds", "kfold": "folds", "n_splits": "folds",
    "random_state": "seed", "random_seed": "seed", "manual_seed": "seed",
    "augmentation": "augment", "augmentations": "augment", "mixup": "mix", "cutmix": "mix",
    "class_weight": "class_weights", "weighted_loss": "class_weights",
}  # fmt: skip
NO_WORKERS = ("num_workers", "dataloader_num_workers")  # have no counterpart here
ALL = {*SETTING_OF, *NO_WORKERS}
