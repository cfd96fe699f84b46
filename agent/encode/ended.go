package encode

import (
	"maps"
	"slices"
	"time"

	"sockwatch/agent/metric"
)

// A liveSeries holds the series that one output has queued and that have not ended, and
// finds those that end. What it finds takes effect when their records are queued: a block
// that the queue has not accepted changes nothing.
type liveSeries struct {
	sources   map[string]*liveSource
	withdrawn map[string]time.Time // sources that failed or were removed, and whose series have yet to end
	ended     time.Time            // the latest time of an ended series
	inputs    map[string]bool      // the sources that have an input; nil: unknown
	file      *seriesFile          // nil: none
	changed   bool                 // the series have changed since the file was last written

	// Of the block that is being encoded:
	ends    []endedSeries
	updates []liveUpdate // applied when it is queued
	diff    seriesDiff
}

// A liveSource holds the series of one source.
type liveSource struct {
	points []metric.Point // as last queued, without what has ended
	descs  []metric.Desc
	latest time.Time // of the samples
	ended  time.Time // the latest time of an ended series
}

// A liveUpdate is the next state of a source.
type liveUpdate struct {
	name    string
	source  liveSource
	gone    bool // it was withdrawn
	changed bool // its series differ from before
}

// An endedSeries is a point whose series have ended, one for each of its fields.
type endedSeries struct {
	point metric.Point // with zero values
	descs []metric.Desc
	time  time.Time
}

func newLiveSeries() *liveSeries {
	return &liveSeries{sources: map[string]*liveSource{}, withdrawn: map[string]time.Time{}}
}

// lookback is how long destinations show the last value of a series that did not end.
// Prometheus and most others wait for five minutes.
const lookback = 5 * time.Minute

// timeOf returns the time of a batch's samples: that of the batch, unless series of the
// source were ended at this time. This happens if a gather that was reported as failed
// returns after all, or at once after another one.
func (l *liveSeries) timeOf(b *metric.Batch) time.Time {
	at := b.Time
	follow := func(ended time.Time) {
		if ahead := ended.UnixMilli() - at.UnixMilli(); ahead >= 0 && ahead < 1000 {
			at = ended.Add(time.Millisecond)
		}
	}
	s := l.sources[b.Source]
	if s != nil {
		follow(s.ended)
	}
	if s == nil || len(s.points) == 0 || l.ended.UnixMilli() == at.UnixMilli() {
		follow(l.ended) // of another source, if the input was renamed
	}
	return at
}

// observe finds the series that end with a batch. all are its points that pass the
// filter, queued those of them that are queued, or nil if min_interval holds them back.
// unchanged: all were observed before.
func (l *liveSeries) observe(name string, descs []metric.Desc, at time.Time, all []metric.Point, queued *encoding, unchanged bool) {
	delete(l.withdrawn, name)
	before := l.sources[name]
	if before == nil {
		before = &liveSource{ended: l.ended}
	}
	u := liveUpdate{name: name, source: *before}
	if queued != nil {
		all = queued.encoded()
		unchanged = metric.Same(all, before.points)
		u.source.points, u.source.descs, u.source.latest = all, descs, lastSample(before.latest, queued.latest)
		u.changed = !sameDescs(before.descs, descs)
	}
	if !unchanged {
		l.compare(&u, before, all, at, queued != nil)
	}
	l.updates = append(l.updates, u)
}

// compare adds the series of before that are missing from points to the ended ones.
func (l *liveSeries) compare(u *liveUpdate, before *liveSource, points []metric.Point, at time.Time, queued bool) {
	l.diff.compare(before.points, points)
	from := len(l.ends)
	t := before.endTime(at)
	for _, end := range l.diff.ends {
		p := before.points[end.index]
		p.Fields, p.Time = end.fields, time.Time{}
		l.ends = append(l.ends, endedSeries{point: p, descs: before.descs, time: t})
	}
	if len(l.ends) > from {
		u.source.ended = t
		l.keepShared(u.name, before.latest, from)
	}
	u.changed = u.changed || len(l.diff.ends) > 0 || queued && l.diff.more
	if !queued && len(l.diff.ends) > 0 {
		u.source.points = l.diff.remaining(before.points)
	}
}

// keepShared removes the series that another source still has from the ended ones. latest
// is the time of their last samples.
func (l *liveSeries) keepShared(name string, latest time.Time, from int) {
	others := map[string]*liveSource{} // after the block is queued
	maps.Copy(others, l.sources)
	for i := range l.updates {
		others[l.updates[i].name] = &l.updates[i].source
	}
	delete(others, name)
	if len(others) == 0 {
		return
	}
	ends, names, index := l.ends[from:], map[string]bool{}, map[string]int{}
	var key []byte
	for i := range ends {
		key = appendSeriesKey(key[:0], &ends[i].point)
		names[ends[i].point.Name], index[string(key)] = true, i
	}
	for _, s := range others {
		for i := range s.points {
			p := &s.points[i]
			if !names[p.Name] {
				continue
			}
			key = appendSeriesKey(key[:0], p)
			if j, ok := index[string(key)]; ok {
				end := &ends[j].point
				end.Fields = slices.DeleteFunc(end.Fields, func(f metric.Field) bool { return hasSeries(p, f) })
				s.latest = lastSample(latest, s.latest)
			}
		}
	}
	l.ends = append(l.ends[:from], slices.DeleteFunc(ends, func(e endedSeries) bool { return len(e.point.Fields) == 0 })...)
}

// endTime returns when series end that are missing at the given time: later than all their
// samples, unless the clock was set back so far that these no longer matter.
func (s *liveSource) endTime(at time.Time) time.Time {
	if next := s.latest.Add(time.Millisecond); next.After(at) && next.Sub(at) < lookback {
		return next
	}
	return at
}

// lastSample returns the later time, unless the clock was set back so far that the earlier
// samples no longer matter.
func lastSample(before, now time.Time) time.Time {
	if before.After(now) && before.Sub(now) < lookback {
		return before
	}
	return now
}

// withdraw ends all series of a source that has failed or was removed. They end with the
// next block that is queued.
func (l *liveSeries) withdraw(name string, at time.Time) {
	s := l.sources[name]
	if _, known := l.withdrawn[name]; !known && s != nil && len(s.points) > 0 {
		l.withdrawn[name] = at
	}
}

// takeOver takes over the live series of the output that is being replaced.
func (l *liveSeries) takeOver(from *liveSeries) {
	l.sources, l.withdrawn, l.ended, l.changed = from.sources, from.withdrawn, from.ended, true
	if l.file != nil && from.file != nil && l.file.path == from.file.path {
		l.file = from.file // which may be writing
	}
}

// start ends the series of the sources that no longer have an input.
func (l *liveSeries) start() {
	now := time.Now()
	for name := range l.sources {
		if l.inputs != nil && !l.inputs[name] {
			l.withdraw(name, now)
		}
	}
}

// found returns the series that end with the block. They are valid until commit.
func (l *liveSeries) found() []endedSeries {
	if len(l.withdrawn) == 0 {
		return l.ends
	}
	for _, name := range slices.Sorted(maps.Keys(l.withdrawn)) {
		u := liveUpdate{name: name, source: *l.sources[name], gone: true}
		u.source.points = nil
		l.compare(&u, l.sources[name], nil, l.withdrawn[name], true)
		l.updates = append(l.updates, u)
	}
	return l.ends
}

// begin forgets the last block, unless it was queued.
func (l *liveSeries) begin() {
	clear(l.ends)
	clear(l.updates)
	l.ends, l.updates = l.ends[:0], l.updates[:0]
}

// commit is called when the block is queued.
func (l *liveSeries) commit() {
	for _, u := range l.updates {
		if u.source.ended.After(l.ended) {
			l.ended = u.source.ended
		}
		l.changed = l.changed || u.changed
		if u.gone {
			delete(l.withdrawn, u.name)
			l.forget()
		}
		s := l.sources[u.name]
		if s == nil {
			s = &liveSource{}
			l.sources[u.name] = s
		}
		*s = u.source
	}
	l.begin()
	if l.file != nil && l.file.write(l.sources, l.changed) {
		l.changed = false
	}
}

// forget forgets the sources that have had no series for a long time: the inputs may have
// been removed.
func (l *liveSeries) forget() {
	maps.DeleteFunc(l.sources, func(_ string, s *liveSource) bool {
		return len(s.points) == 0 && l.ended.Sub(s.ended) > time.Hour
	})
}

// end is called when no more blocks follow. It blocks while the disk hangs.
func (l *liveSeries) end() {
	if l.file != nil {
		l.file.writeLast(l.sources, l.changed)
	}
}
