"""Words: from text to ids, to lemmas, to scores."""
