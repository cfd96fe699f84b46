package remotewrite

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// A collection is the samples of several records, sorted by series and time: what a request
// consists of, in either version of the protocol. At most one sample of a series has a
// given time.
type collection struct {
	records int
	sets    [][]label // label sets
	metrics []string
	series  []series // in the order of their first samples
	samples int
	first   int64 // the earliest and the latest time of a sample
	last    int64
}

// A series is one metric with one set of labels.
type series struct {
	set, metric int
	kind        metric.Type
	hash        uint64         // two series with the same hash are so unlikely that they are not distinguished
	samples     []seriesSample // at least one
}

type seriesSample struct {
	time  int64 // in milliseconds
	value float64
	start int64 // in milliseconds; 0: unknown
}

// A collector makes collections. It remembers the last sample that was sent of each series,
// so that no other sample with the same time follows.
type collector struct {
	seed   maphash.Seed
	sent   map[uint64]seriesSample // by the hash of the series
	pruned time.Time
}

func newCollector() *collector {
	return &collector{seed: maphash.MakeSeed(), sent: map[uint64]seriesSample{}}
}

// collect returns the samples of the records that are not older than oldest. It returns the
// reasons of records that cannot be sent, by index: they are damaged or too old, or none of
// their samples can be stored, because other samples of the same series have the same time.
// A sample that repeats an equal one is left out without a reason.
func (c *collector) collect(records [][]byte, oldest int64) (*collection, map[int]error) {
	b := builder{
		collection: &collection{records: len(records), first: math.MaxInt64, last: math.MinInt64},
		collector:  c, setOf: make(map[string]int, len(records)), metricOf: map[string]int{}, rows: make([]row, 0, 8*len(records)),
	}
	rejected := map[int]error{}
	for i, r := range records {
		if err := b.add(r, oldest); err != nil {
			rejected[i] = err
		}
	}
	b.assign()
	return b.collection, rejected
}

// commit remembers the samples of a collection that was sent.
func (c *collector) commit(sent *collection) {
	for i := range sent.series {
		s := &sent.series[i]
		c.sent[s.hash] = s.samples[len(s.samples)-1]
	}
	c.prune(sent.last)
}

// keepSent is how long the last sample of a series is remembered, and how often those that
// are older are forgotten.
const keepSent = 10 * time.Minute

func (c *collector) prune(last int64) {
	if now := time.Now(); now.Sub(c.pruned) > keepSent {
		c.pruned = now
		for hash, s := range c.sent {
			if s.time < last-keepSent.Milliseconds() {
				delete(c.sent, hash)
			}
		}
	}
}

// A builder holds the state that is needed only while a collection is made.
type builder struct {
	*collection
	collector    *collector
	setOf        map[string]int // by the labels of a record
	metricOf     map[string]int
	setHashes    []uint64
	metricHashes []uint64
	seriesOf     [][]int // by set and metric: 1 + the index of the series, or 0
	lastRow      []int   // by series: 1 + the index of its last row, or 0
	rows         []row
	parsed       []sample
}

// A row is a sample of a series.
type row struct {
	series int
	before int // 1 + the index of the row of the same series before, or 0
	seriesSample
}

// add adds the samples of one record.
func (b *builder) add(record []byte, oldest int64) error {
	p, err := parse(record)
	if err != nil {
		return err
	}
	if p.time < oldest {
		return fmt.Errorf("older than sample_age_limit: %v", time.UnixMilli(p.time).UTC().Format(time.RFC3339))
	}
	b.parsed = b.parsed[:0]
	for len(p.samples) > 0 { // all of them first, so that a damaged record adds none
		s, err := p.next()
		if err != nil {
			return err
		}
		b.parsed = append(b.parsed, s)
	}
	set, err := b.set(p.labels)
	if err != nil {
		return err
	}
	conflict := ""
	usable := 0
	for _, s := range b.parsed {
		if b.addSample(set, &s, p.time) {
			usable++
		} else {
			conflict = string(s.metric)
		}
	}
	if usable == 0 && conflict != "" {
		return fmt.Errorf("another sample of %s%s has the same time", conflict, p.labels)
	}
	return nil
}

// addSample adds one sample. It reports false if another sample has its place.
func (b *builder) addSample(set int, s *sample, at int64) bool {
	added := seriesSample{time: at, value: s.value}
	if s.kind == metric.Counter && s.start < at {
		added.start = s.start
	}
	i := b.findSeries(set, s)
	if other, ok := b.sampleAt(i, at); ok {
		return math.Float64bits(other.value) == math.Float64bits(s.value)
	}
	b.rows = append(b.rows, row{series: i, before: b.lastRow[i], seriesSample: added})
	b.lastRow[i] = len(b.rows)
	b.first, b.last = min(b.first, at), max(b.last, at)
	return true
}

// sampleAt returns the sample of a series that has the given time, if there is one.
func (b *builder) sampleAt(series int, at int64) (seriesSample, bool) {
	if sent, ok := b.collector.sent[b.series[series].hash]; ok && sent.time == at {
		return sent, true
	}
	for i := b.lastRow[series]; i > 0; i = b.rows[i-1].before {
		if b.rows[i-1].time == at {
			return b.rows[i-1].seriesSample, true
		}
	}
	return seriesSample{}, false
}

// findSeries returns the index of the series of a sample.
func (b *builder) findSeries(set int, s *sample) int {
	name, ok := b.metricOf[string(s.metric)]
	if !ok {
		name = len(b.metrics)
		b.metrics = append(b.metrics, string(s.metric))
		b.metricHashes = append(b.metricHashes, maphash.Bytes(b.collector.seed, s.metric))
		b.metricOf[b.metrics[name]] = name
	}
	if n := name + 1 - len(b.seriesOf[set]); n > 0 {
		b.seriesOf[set] = append(b.seriesOf[set], make([]int, n)...)
	}
	i := &b.seriesOf[set][name]
	if *i == 0 {
		hash := maphash.Comparable(b.collector.seed, [2]uint64{b.setHashes[set], b.metricHashes[name]})
		b.series = append(b.series, series{set: set, metric: name, kind: s.kind, hash: hash})
		b.lastRow = append(b.lastRow, 0)
		*i = len(b.series)
	}
	return *i - 1
}

// set returns the index of a label set.
func (b *builder) set(labels []byte) (int, error) {
	set, ok := b.setOf[string(labels)]
	if ok {
		return set, nil
	}
	parsed, err := parseLabels(labels)
	if err != nil {
		return 0, err
	}
	set = len(b.sets)
	b.sets = append(b.sets, parsed)
	b.setHashes = append(b.setHashes, maphash.Bytes(b.collector.seed, labels))
	b.seriesOf = append(b.seriesOf, nil)
	b.setOf[string(labels)] = set
	return set, nil
}

// assign gives each series its samples, in the order of time, and removes series without
// any. (The clock may have been set back between two records.)
func (b *builder) assign() {
	b.samples = len(b.rows)
	order := func(x, y row) int { return cmp.Or(cmp.Compare(x.series, y.series), cmp.Compare(x.time, y.time)) }
	if !slices.IsSortedFunc(b.rows, order) { // they are, unless the records are of several batches
		slices.SortStableFunc(b.rows, order)
	}
	all := make([]seriesSample, len(b.rows))
	for i, r := range b.rows {
		all[i] = r.seriesSample
		s := &b.series[r.series]
		s.samples = all[i-len(s.samples) : i+1 : i+1]
	}
	b.series = slices.DeleteFunc(b.series, func(s series) bool { return len(s.samples) == 0 })
}
