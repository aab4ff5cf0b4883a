"""Keys of transformers' arguments that are no matter of the optimizer, by what they concern."""

NO_MATTER = {
    "output and logging": """
        output_dir overwrite_output_dir logging_dir logging_strategy logging_steps
        logging_first_step log_on_each_node logging_nan_inf_filter log_level log_level_replica
        disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
        trackio_static_space_id include_num_input_tokens_seen include_tokens_per_second
        num_input_tokens_seen skip_memory_metrics
    """,
    "batches and data": """
        per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size
        per_gpu_eval_batch_size train_batch_size eval_batch_size auto_find_batch_size
        dataloader_drop_last dataloader_num_workers dataloader_pin_memory
        dataloader_persistent_workers dataloader_prefetch_factor dataloader_in_order
        dataloader_multiprocessing_context remove_unused_columns label_names group_by_length
        train_sampling_strategy length_column_name ignore_data_skip average_tokens_across_devices
        split_batches dispatch_batches accelerator_config torch_empty_cache_steps past_index
    """,
    "evaluation": """
        do_train do_eval do_predict eval_strategy evaluation_strategy eval_steps eval_delay
        prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object
        eval_accumulation_steps include_for_metrics include_inputs_for_metrics batch_eval_metrics
        metric_for_best_model greater_is_better load_best_model_at_end fp16_full_eval
        bf16_full_eval predict_with_generate generation_max_length generation_num_beams
        generation_config sortish_sampler jit_mode_eval mp_parameters
    """,
    "checkpoints and the hub": """
        save_strategy save_steps save_only_model save_on_each_node save_total_limit
        save_safetensors enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id
        hub_strategy hub_always_push hub_revision resume_from_checkpoint
        restore_callback_states_from_checkpoint push_to_hub_model_id push_to_hub_organization
        push_to_hub_token
    """,
    "precision and devices": """
        bf16 fp16 tf32 half_precision_backend fp16_opt_level fp16_backend use_cpu no_cuda
        use_mps_device use_ipex local_rank ddp_backend ddp_find_unused_parameters
        ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_timeout fsdp_config
        fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap parallelism_config
        tpu_num_cores tpu_metrics_debug debug torchdynamo torch_compile torch_compile_backend
        torch_compile_mode ray_scope optim_target_modules
    """,
    "the model and its loss": """
        label_smoothing_factor label_smoothing neftune_noise_alpha gradient_checkpointing
        gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs
        use_liger_kernel liger_kernel_config use_cache
    """,
    "seeds": "seed data_seed full_determinism",
    "arguments of example scripts": """
        model_name_or_path model_revision torch_dtype dtype attn_implementation config_name
        tokenizer_name tokenizer_name_or_path cache_dir use_fast_tokenizer token trust_remote_code
        use_auth_token low_cpu_mem_usage task_name dataset_name dataset_config dataset_config_name
        dataset_mixer dataset_mixture dataset_splits dataset_train_split dataset_test_split
        dataset_text_field dataset_kwargs dataset_num_proc train_file validation_file test_file
        max_seq_length max_length packing pad_to_max_length max_train_samples max_eval_samples
        max_predict_samples preprocessing_num_workers overwrite_cache validation_split_percentage
        block_size streaming text_column summary_column source_prefix max_source_length
        max_target_length chat_template num_beams ignore_pad_token_for_loss assistant_only_loss
        completion_only_loss eos_token beta loss_type max_prompt_length precompute_ref_log_probs
        use_peft lora_r lora_alpha lora_dropout lora_target_modules lora_modules_to_save
        load_in_4bit load_in_8bit bnb_4bit_quant_type use_bnb_nested_quant
    """,
}
