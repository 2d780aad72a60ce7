"""Reports of class-incremental studies: tasks are additions of classes, and accuracy is that on test images."""
