"""From a checkpoint to SavedModels, separated voices, figures and pages."""
