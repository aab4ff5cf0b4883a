"""Keys of timm's train script that are no matter of the optimizer, by what they concern."""

_OF_SCHEDULES = """
    lr_cycle_mul lr_cycle_decay lr_cycle_limit lr_k_decay warmup_lr min_lr epochs decay_milestones
    decay_epochs warmup_epochs warmup_prefix cooldown_epochs patience_epochs decay_rate eval_metric
    model_ema_decay model_ema_warmup layer_decay_min_scale layer_decay_no_opt_scale lr_decay_fn
    lr_stable_timescale
"""
OF_SCHEDULES = tuple(_OF_SCHEDULES.split())

NO_MATTER = {
    "data": """
        data_dir data dataset train_split val_split train_num_samples val_num_samples
        dataset_download dataset_trust_remote_code class_map input_img_mode input_key target_key
        batch_size validation_batch_size workers pin_mem use_multi_epochs_loader epoch_repeats
        no_prefetcher fast_norm no_aug train_crop_mode scale ratio hflip vflip color_jitter
        color_jitter_prob grayscale_prob gaussian_blur_prob aa aug_repeats aug_splits reprob remode
        recount resplit mixup cutmix cutmix_minmax mixup_prob mixup_switch_prob mixup_mode
        mixup_off_epoch train_interpolation img_size in_chans input_size crop_pct crop_mode mean std
        interpolation worker_seeding dataset_split
    """,
    "the model and its loss": """
        model pretrained pretrained_path initial_checkpoint num_classes gp drop drop_connect
        drop_path drop_block head_init_scale head_init_bias model_kwargs smoothing jsd_loss bce_loss
        bce_sum bce_target_thresh bce_pos_weight bn_momentum bn_eps sync_bn dist_bn split_bn
        torchscript torchcompile torchcompile_mode grad_checkpointing fuser naflex_loader
    """,
    "devices and precision": """
        device device_modules amp amp_dtype amp_impl model_dtype local_rank rank world_size
        distributed channels_last no_ddp_bb synchronize_step dist_url dist_backend fsdp
        model_ema_force_cpu
    """,
    "output, checkpoints and seeds": """
        seed log_interval recovery_interval checkpoint_hist save_images output experiment
        eval_metric tta use_train_size log_wandb wandb_project wandb_tags wandb_resume_id resume
        no_resume_opt start_epoch config val_interval
    """,
    "the implementation of the optimizer": "opt_foreach opt_fused",
}
