package encode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"sockwatch/agent/buffer"
	"sockwatch/agent/calls"
	"sockwatch/agent/metric"
)

// A seriesFile keeps the live series of one output in the state directory, so that the
// first batches after a restart show what has ended meanwhile. It is written in the
// background, at most once a minute, and when the output ends. If the series have not
// changed, only its modification time is set.
type seriesFile struct {
	path  string
	title string // of the output, for the watchdog's message
	calls *calls.Pending
	log   *slog.Logger

	last     time.Time  // when the last write began; used by the goroutine of the encoder
	writing  sync.Mutex // held during a write
	outdated bool       // the last write failed; guarded by writing
	failures calls.Throttle
}

const (
	// seriesFileInterval is the time between two writes.
	seriesFileInterval = time.Minute
	// maxSeriesFile is the maximum size, enough for more than 100,000 points.
	maxSeriesFile = 64 << 20
)

// seriesLoadTimeout is how long a start or reload waits for the disk.
const seriesLoadTimeout = 5 * time.Second

// load takes the series of the last run from the file, if it can be read in time.
func (l *liveSeries) load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, seriesLoadTimeout)
	defer cancel()
	f := l.file
	var sources map[string]*liveSource
	var loadErr error // must not be read, like sources, unless load has returned
	err := calls.ErrDiskHangs
	if f.calls.Within(ctx, f.title+": reading its series", func() { sources, loadErr = f.load() }) {
		err = loadErr
	}
	switch {
	case err != nil:
		f.log.Warn("cannot read which series were live, those that have ended since keep their last value for about five minutes", "error", err)
	case sources != nil:
		l.sources, l.changed = sources, false
	}
}

// load returns the sources in the file. There are none if the file is older than
// lookback: destinations no longer show these series.
func (f *seriesFile) load() (map[string]*liveSource, error) {
	content, modified, err := buffer.ReadFile(f.path, maxSeriesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if age := time.Since(modified); age > lookback || age < -lookback {
		return nil, nil
	}
	sources, err := parseSeries(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	for _, s := range sources {
		s.latest = modified
	}
	return sources, nil
}

// write writes the sources in the background, unless the last write has begun less than a
// minute ago or has not ended. It reports whether it writes. changed: the series differ from
// those of the last write.
func (f *seriesFile) write(sources map[string]*liveSource, changed bool) bool {
	now := time.Now()
	if !f.last.IsZero() && now.Sub(f.last) < seriesFileInterval || !f.writing.TryLock() {
		return false
	}
	f.last = now
	content := snapshotSeries(sources)
	go func() {
		defer f.writing.Unlock()
		f.lockedWrite(content, changed, now)
	}()
	return true
}

// writeLast writes the sources when the output ends. It blocks while the disk hangs.
func (f *seriesFile) writeLast(sources map[string]*liveSource, changed bool) {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.lockedWrite(snapshotSeries(sources), changed, time.Now())
}

func (f *seriesFile) lockedWrite(sources map[string]liveSource, changed bool, now time.Time) {
	defer f.calls.Begin(f.title + ": writing its series")()
	var err error
	if changed = changed || f.outdated; !changed {
		err = os.Chtimes(f.path, now, now)
		changed = errors.Is(err, fs.ErrNotExist)
	}
	if changed {
		err = f.replace(sources, now)
	}
	f.outdated = err != nil
	if err != nil && f.failures.Add(1) > 0 {
		f.log.Warn("cannot save which series are live, those that end during a restart keep their last value for about five minutes", "error", err)
	}
}

func (f *seriesFile) replace(sources map[string]liveSource, now time.Time) error {
	content, err := appendSeries(nil, sources)
	if err == nil && len(content) > maxSeriesFile {
		err = fmt.Errorf("%q would have %d bytes, at most %d can be read again", f.path, len(content), maxSeriesFile)
		if removed := os.Remove(f.path); !errors.Is(removed, fs.ErrNotExist) {
			err = errors.Join(err, removed)
		}
	}
	if err == nil {
		err = buffer.WriteFile(f.path, content)
	}
	if err == nil {
		err = os.Chtimes(f.path, now, now)
	}
	return err
}

// snapshotSeries returns the sources for another goroutine. Their points never change.
func snapshotSeries(sources map[string]*liveSource) map[string]liveSource {
	all := make(map[string]liveSource, len(sources))
	for name, s := range sources {
		if len(s.points) > 0 {
			all[name] = *s
		}
	}
	return all
}

// The file is a line with a checksum, and a JSON object: a savedSource for each source.
type savedSource struct {
	Descs  []metric.Desc
	Fields [][]savedField // the lists of fields that points have
	Points []savedPoint
}

type savedField struct{ Key, Kind string }

type savedPoint struct {
	Name   string
	Tags   []string // key, value, key, value, ...
	Fields int      // index of the list
	Start  time.Time
}

const seriesHeader = "sockwatch series 1, CRC-32C %08x\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kindNames are the kinds as written to the file.
var kindNames = []string{metric.KindFloat: "float", metric.KindInt: "int", metric.KindUint: "uint", metric.KindBool: "bool", metric.KindString: "string"}

// appendSeries appends the content of a file.
func appendSeries(dst []byte, sources map[string]liveSource) ([]byte, error) {
	saved := make(map[string]*savedSource, len(sources))
	for name, s := range sources {
		saved[name] = saveSource(&s)
	}
	body, err := json.Marshal(saved)
	if err != nil {
		return dst, err
	}
	return append(fmt.Appendf(dst, seriesHeader, crc32.Checksum(body, castagnoli)), body...), nil
}

func saveSource(s *liveSource) *savedSource {
	saved := &savedSource{Descs: s.descs}
	lists := map[string]int{}
	var key []byte
	for _, p := range s.points {
		key = key[:0]
		for _, f := range p.Fields { // 0xff does not occur in UTF-8
			key = append(append(key, f.Key...), 0xff, byte(f.Value.Kind()))
		}
		list, ok := lists[string(key)]
		if !ok {
			list = len(saved.Fields)
			lists[string(key)] = list
			fields := make([]savedField, len(p.Fields))
			for i, f := range p.Fields {
				fields[i] = savedField{f.Key, kindNames[f.Value.Kind()]}
			}
			saved.Fields = append(saved.Fields, fields)
		}
		tags := make([]string, 0, 2*len(p.Tags))
		for _, t := range p.Tags {
			tags = append(tags, t.Key, t.Value)
		}
		saved.Points = append(saved.Points, savedPoint{Name: p.Name, Tags: tags, Fields: list, Start: p.Start})
	}
	return saved
}

// parseSeries returns the sources in a file.
func parseSeries(content []byte) (map[string]*liveSource, error) {
	header, body, _ := bytes.Cut(content, []byte("\n"))
	if want := fmt.Sprintf(seriesHeader, crc32.Checksum(body, castagnoli)); string(header)+"\n" != want {
		return nil, errors.New("is damaged: its checksum is wrong")
	}
	var saved map[string]savedSource
	if err := json.Unmarshal(body, &saved); err != nil {
		return nil, err
	}
	sources := make(map[string]*liveSource, len(saved))
	for name, s := range saved {
		source, err := s.restore()
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", name, err)
		}
		sources[name] = source
	}
	return sources, nil
}

func (s *savedSource) restore() (*liveSource, error) {
	lists := make([][]metric.Field, len(s.Fields))
	for i, fields := range s.Fields {
		for _, f := range fields {
			kind := slices.Index(kindNames, f.Kind)
			if kind < 0 {
				return nil, fmt.Errorf("unknown kind %q", f.Kind)
			}
			lists[i] = append(lists[i], metric.Field{Key: f.Key, Value: metric.Zero(metric.Kind(kind))})
		}
	}
	source := &liveSource{descs: s.Descs}
	for _, saved := range s.Points {
		if saved.Fields < 0 || saved.Fields >= len(lists) || len(saved.Tags)%2 != 0 {
			return nil, fmt.Errorf("point %q is not complete", saved.Name)
		}
		p := metric.Point{Name: saved.Name, Fields: lists[saved.Fields], Start: saved.Start}
		for t := saved.Tags; len(t) > 0; t = t[2:] {
			p.Tags = append(p.Tags, metric.Tag{Key: t[0], Value: t[1]})
		}
		if err := p.Check(); err != nil {
			return nil, err
		}
		source.points = append(source.points, p)
	}
	return source, nil
}
