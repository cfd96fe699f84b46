package prometheus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/promname"
)

const ownName = "sockwatch_prometheus"

// descs describes the output's own metrics. Its page shows them together with the
// program's process_* and go_* metrics.
func descs() []metric.Desc {
	return []metric.Desc{
		{Name: ownName, Field: "series", Type: metric.Gauge, Unit: "series", Help: "Series of gathered points on this page"},
		{Name: ownName, Field: "left_out_series_total", Type: metric.Counter, Unit: "series", Help: "Series that pages dropped, by reason: duplicate, max_series or invalid"},
		{Name: ownName, Field: "refused_requests_total", Type: metric.Counter, Unit: "requests", Help: "Requests refused because too many were being answered at the time"},
	}
}

// ownMetrics is the registry of the program's own metrics.
type ownMetrics struct {
	*prometheus.Registry
	series  prometheus.Gauge
	dropped *prometheus.CounterVec
	refused prometheus.Counter
}

func newOwnMetrics() *ownMetrics {
	opts := make([]prometheus.Opts, 0, 3)
	for _, d := range descs() {
		opts = append(opts, prometheus.Opts{Name: promname.Metric(d.Name, d.Field), Help: d.Help})
	}
	m := &ownMetrics{
		Registry: prometheus.NewRegistry(),
		series:   prometheus.NewGauge(prometheus.GaugeOpts(opts[0])),
		dropped:  prometheus.NewCounterVec(prometheus.CounterOpts(opts[1]), []string{"reason"}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts(opts[2])),
	}
	for _, why := range dropReasons {
		m.dropped.WithLabelValues(string(why))
	}
	m.MustRegister(m.series, m.dropped, m.refused, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
