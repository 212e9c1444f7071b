"""What figures are made of: views of groups, numbers, drawings, panels."""
