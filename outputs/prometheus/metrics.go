package prometheus

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sockwatch/agent/metric"
	"sockwatch/outputs/internal/livepage"
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
		{Name: ownName, Field: "page_requests_total", Type: metric.Counter, Unit: "requests", Help: "Requests to the live page, by kind: page, asset, api or stream"},
		{Name: ownName, Field: "page_refused_requests_total", Type: metric.Counter, Unit: "requests", Help: "Requests to the live page that were refused, by reason: host, cross_site or busy"},
	}
}

// ownMetrics is the registry of the program's own metrics.
type ownMetrics struct {
	*prometheus.Registry
	series  prometheus.Gauge
	dropped *prometheus.CounterVec
	refused prometheus.Counter

	pageRequests, pageRefused *prometheus.CounterVec // of the live page
}

func newOwnMetrics() *ownMetrics {
	opts := make([]prometheus.Opts, 0, 5)
	for _, d := range descs() {
		opts = append(opts, prometheus.Opts{Name: promname.Metric(d.Name, d.Field), Help: d.Help})
	}
	m := &ownMetrics{
		Registry: prometheus.NewRegistry(),
		series:   prometheus.NewGauge(prometheus.GaugeOpts(opts[0])),
		dropped:  prometheus.NewCounterVec(prometheus.CounterOpts(opts[1]), []string{"reason"}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts(opts[2])),

		pageRequests: prometheus.NewCounterVec(prometheus.CounterOpts(opts[3]), []string{"kind"}),
		pageRefused:  prometheus.NewCounterVec(prometheus.CounterOpts(opts[4]), []string{"reason"}),
	}
	for _, why := range dropReasons {
		m.dropped.WithLabelValues(string(why))
	}
	for _, kind := range livepage.Kinds() {
		m.pageRequests.WithLabelValues(string(kind))
	}
	for _, why := range livepage.Reasons() {
		m.pageRefused.WithLabelValues(string(why))
	}
	m.MustRegister(m.series, m.dropped, m.refused, m.pageRequests, m.pageRefused, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}
