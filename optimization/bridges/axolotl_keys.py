"""Keys of axolotl's files that are no matter of the optimizer, by what they concern."""

NO_MATTER = {
    "the model": """
        base_model base_model_config model_type tokenizer_type tokenizer_config processor_type
        trust_remote_code revision_of_model model_config is_llama_derived_model
        is_mistral_derived_model is_falcon_derived_model load_in_8bit load_in_4bit gptq
        bnb_config_kwargs strict special_tokens added_tokens_overrides tokens
        resize_token_embeddings_to_32x overrides_of_model_config overrides_of_model_kwargs
        tokenizer_use_fast tokenizer_legacy plugins device_map max_memory unfrozen_parameters
    """,
    "adapters": """
        adapter lora_model_dir lora_r lora_alpha lora_dropout lora_target_modules lora_target_linear
        lora_fan_in_fan_out lora_modules_to_save peft_use_dora peft_use_rslora peft lora_mlp_kernel
        lora_qkv_kernel lora_o_kernel peft_layers_to_transform merge_lora
    """,
    "data": """
        datasets test_datasets pretraining_dataset dataset_prepared_path dataset_processes
        val_set_size chat_template chat_template_jinja default_system_message sequence_len
        sample_packing eval_sample_packing sample_packing_eff_est sample_packing_bin_size
        sample_packing_group_size pad_to_sequence_len train_on_inputs group_by_length
        shuffle_merged_datasets skip_prepare_dataset dataset_shard_num dataset_shard_idx rl rl_beta
        dpo_beta excess_length_strategy micro_batch_size batch_size eval_batch_size streaming type
    """,
    "evaluation, output and checkpoints": """
        evals_per_epoch saves_per_epoch eval_table_size eval_max_new_tokens eval_causal_lm_metrics
        early_stopping_patience auto_resume_from_checkpoints save_first_step do_bench_eval
        wandb_project wandb_entity wandb_watch wandb_name wandb_run_id wandb_log_model wandb_mode
        use_wandb mlflow_tracking_uri mlflow_experiment_name mlflow_run_name use_mlflow use_comet
        comet_api_key use_tensorboard hf_use_auth_token dataset_exact_deduplication
        loss_watchdog_threshold loss_watchdog_patience profiler_steps
    """,
    "precision and devices": """
        bfloat16 float16 bf16 fp16 tf32 flash_attention xformers_attention sdp_attention
        s2_attention eager_attention flex_attention flash_attn_cross_entropy flash_attn_rms_norm
        flash_attn_fuse_qkv flash_attn_fuse_mlp world_size ddp sequence_parallel_degree
        context_parallel_size tensor_parallel_size liger_rope liger_rms_norm liger_glu_activation
        liger_layer_norm liger_fused_linear_cross_entropy liger_swiglu gc_steps torchdistx_path
        cut_cross_entropy unsloth_cross_entropy_loss noisy_embedding_alpha fsdp_version
    """,
}
