"""What watches the service: a Grafana dashboard and Prometheus rules."""
