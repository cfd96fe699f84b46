module sockwatch/deploy/monitoring

go 1.26.0

replace sockwatch => ../..

require sockwatch v0.0.0-00010101000000-000000000000
