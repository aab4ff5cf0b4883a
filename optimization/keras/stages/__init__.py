"""The stages of a step of `PipelineOptimizer`, a file each; `pipeline.STAGES` has their order."""
