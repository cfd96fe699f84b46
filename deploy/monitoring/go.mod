module sockwatch/deploy/monitoring

go 1.26.0

replace sockwatch => ../..

require (
	github.com/grafana/grafana-foundation-sdk/go v0.0.22
	sockwatch v0.0.0-00010101000000-000000000000
)

require github.com/google/go-cmp v0.7.0 // indirect
