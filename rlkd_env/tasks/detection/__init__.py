"""Detection as a task: the student proposes, both networks classify, COCO's average precision judges."""
