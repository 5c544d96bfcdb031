"""Pictures to digits: opened, cleaned of shadows and lines, segmented, classified, printed."""
