package prometheus

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"sockwatch/agent/metric"
)

const ownName = "sockwatch_prometheus"

// descs documents the output's own metrics, which stand on its page beside the
// process_* and go_* of the program.
func descs() []metric.Desc {
	return []metric.Desc{
		{Name: ownName, Field: "series", Type: metric.Gauge, Unit: "series", Help: "Series of gathered points on this page"},
		{Name: ownName, Field: "left_out_series_total", Type: metric.Counter, Unit: "series", Help: "Series that pages left out, by reason: duplicate, folded (max_series) or invalid"},
		{Name: ownName, Field: "refused_requests_total", Type: metric.Counter, Unit: "requests", Help: "Requests refused because as many as allowed were being answered"},
	}
}

// The ownMetrics are fresh at every scrape.
type ownMetrics struct {
	series  prometheus.Gauge
	leftOut *prometheus.CounterVec
	refused prometheus.Counter

	mu         sync.Mutex
	collectors []prometheus.Collector
	families   []*ownFamily // sorted by name
	byDesc     map[*prometheus.Desc]*ownFamily
}

// An ownFamily is a family that a collector has sent; its metrics are those of
// the gathering under way.
type ownFamily struct {
	desc *prometheus.Desc
	dto.MetricFamily
}

func newOwnMetrics() *ownMetrics {
	opts := make([]prometheus.Opts, 0, 3)
	for _, d := range descs() {
		opts = append(opts, prometheus.Opts{Name: metricName(d.Name, d.Field), Help: d.Help})
	}
	m := &ownMetrics{
		series:  prometheus.NewGauge(prometheus.GaugeOpts(opts[0])),
		leftOut: prometheus.NewCounterVec(prometheus.CounterOpts(opts[1]), []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts(opts[2])),
		byDesc:  map[*prometheus.Desc]*ownFamily{},
	}
	for _, r := range counted {
		m.leftOut.WithLabelValues(string(r))
	}
	m.collectors = []prometheus.Collector{m.series, m.leftOut, m.refused, collectors.NewGoCollector(), newProcessCollector()}
	return m
}

// gather calls use with each family of the moment, sorted by name. The messages
// are valid until use returns.
//
// It does what a prometheus.Registry does but for the checks, which only foreign
// collectors need, and for the two channels of a thousand metrics that a Registry
// makes each time: those would be half of what a scrape allocates.
func (m *ownMetrics) gather(use func(*dto.MetricFamily) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := make(chan prometheus.Metric, 16)
	go func() {
		defer close(sent)
		for _, c := range m.collectors {
			c.Collect(sent)
		}
	}()
	var err error
	for metric := range sent { // to the end: nobody may be left sending
		if err == nil {
			err = m.take(metric)
		}
	}
	for _, f := range m.families {
		if err == nil && len(f.Metric) > 0 {
			slices.SortFunc(f.Metric, compareLabels)
			err = use(&f.MetricFamily)
		}
		f.Metric = f.Metric[:0]
	}
	return err
}

// compareLabels orders the metrics of a family, which have the same labels.
func compareLabels(a, b *dto.Metric) int {
	return slices.CompareFunc(a.Label, b.Label, func(a, b *dto.LabelPair) int {
		return cmp.Compare(a.GetValue(), b.GetValue())
	})
}

func (m *ownMetrics) take(metric prometheus.Metric) error {
	f := m.byDesc[metric.Desc()]
	if f == nil {
		known, err := familyOf(metric)
		if err != nil {
			return err
		}
		f = known
		m.byDesc[f.desc] = f
		m.families = append(m.families, f)
		slices.SortFunc(m.families, func(a, b *ownFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	}
	out := &dto.Metric{}
	f.Metric = append(f.Metric, out)
	return metric.Write(out)
}

// familyOf returns the metric's family, without metrics. Only a Registry knows
// what a Desc says, so that one is asked, once for each Desc.
func familyOf(metric prometheus.Metric) (*ownFamily, error) {
	r := prometheus.NewRegistry()
	if err := r.Register(single{metric}); err != nil {
		return nil, err
	}
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	if len(families) != 1 {
		return nil, fmt.Errorf("%v is not one family but %d", metric.Desc(), len(families))
	}
	f := families[0]
	return &ownFamily{metric.Desc(), dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type}}, nil
}

// A single is the collector of one metric.
type single struct{ prometheus.Metric }

// Describe sends the metric's Desc.
func (s single) Describe(ch chan<- *prometheus.Desc) { ch <- s.Desc() }

// Collect sends the metric.
func (s single) Collect(ch chan<- prometheus.Metric) { ch <- s.Metric }
