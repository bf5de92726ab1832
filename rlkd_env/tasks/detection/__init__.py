"""Object detection: the student proposes regions, both networks classify them, and COCO's average precision judges."""
