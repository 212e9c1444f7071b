"""What several sources share: their JSON, names of their files, plans, pooled sites."""
