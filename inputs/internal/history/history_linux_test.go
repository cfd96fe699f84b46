package history

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
)

// A testLog is a log that tests can read.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// messages returns the message of each line.
func (l *testLog) messages() (messages []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for text := range strings.Lines(l.text.String()) {
		var line struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			panic(err)
		}
		messages = append(messages, line.Level+" "+line.Msg)
	}
	return messages
}

func (l *testLog) want(t *testing.T, messages ...string) {
	t.Helper()
	if diff := cmp.Diff(messages, l.messages(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func (l *testLog) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// options returns the options of a history in a directory.
func options(dir string, l *testLog) Options {
	return Options{
		Path: filepath.Join(dir, "tcp_listen.history.jsonl"), FirstSeen: filepath.Join(dir, "tcp_listen.first_seen.json"),
		MachineID: "machine", Log: l.logger(),
	}
}

// open opens the history in a directory, and checks that no warning is logged.
func open(t *testing.T, dir string) (*Store, map[string]json.RawMessage) {
	t.Helper()
	var l testLog
	s, records := Open(options(dir, &l))
	l.want(t)
	return s, records
}

var someTime = time.Date(2026, 11, 26, 3, 12, 0, 0, time.UTC)

// eventOf returns an event with a value of each type.
func eventOf(n int) metric.Point {
	return metric.Point{
		Name: "tcp_listen_event", Tags: metric.NewTags("event", "opened", "port", fmt.Sprint(n)), Time: someTime,
		Fields: []metric.Field{
			{Key: "pid", Value: metric.Int(int64(n))}, {Key: "inode", Value: metric.Uint(1 << 63)}, {Key: "while_down", Value: metric.Bool(true)},
			{Key: "down_seconds", Value: metric.Float(0.1)}, {Key: "exe", Value: metric.String(`/usr/bin/<x>&"` + "\u2028")},
		},
	}
}

func eventsOf(numbers ...int) (events []metric.Point) {
	for _, n := range numbers {
		events = append(events, eventOf(n))
	}
	return events
}

func record(text string) json.RawMessage { return json.RawMessage(text) }

func set(key, text string) map[string]json.RawMessage {
	return map[string]json.RawMessage{key: record(text)}
}

// wait is how long a test waits for a responding disk.
const wait = 30 * time.Second

// numbers returns the numbers that were passed to eventOf.
func numbers(events []metric.Point) (numbers []int) {
	for i := range events {
		v, _ := events[i].Field("pid")
		numbers = append(numbers, int(v.AsInt()))
	}
	return numbers
}

// identity returns the history id and the sequence number of an event.
func identity(p *metric.Point) string {
	id, _ := p.Field("history")
	n, _ := p.Field("sequence")
	return fmt.Sprint(id, " ", n)
}

func wantEvents(t *testing.T, s *Store, want ...int) (events []metric.Point, stored func()) {
	t.Helper()
	events, stored = s.Events(wait)
	if diff := cmp.Diff(want, numbers(events), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	return events, stored
}

func wantRecords(t *testing.T, got map[string]json.RawMessage, want ...string) {
	t.Helper()
	var texts []string
	for _, key := range slices.Sorted(maps.Keys(got)) {
		texts = append(texts, key+" "+string(got[key]))
	}
	if diff := cmp.Diff(want, texts, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// kill leaves a store as if the program had been killed: nothing more is written.
func kill(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing != nil {
		s.lockedAwait(wait, func() bool { return true })
	}
	if s.journal != nil {
		s.journal.close()
	}
	s.journal = nil
}

func TestEventsHaveIdentityAndTimeOfTheirOwn(t *testing.T) {
	s, _ := open(t, t.TempDir())
	s.Append(Write{Events: eventsOf(1, 2)})
	s.Append(Write{Events: eventsOf(3)})
	events, _ := wantEvents(t, s, 1, 2, 3)
	want := eventsOf(1, 2, 3)
	for i := range want {
		want[i].Fields = append(want[i].Fields,
			metric.Field{Key: "history", Value: metric.String(s.ID())}, metric.Field{Key: "sequence", Value: metric.Int(int64(i + 1))})
	}
	want[1].Time = someTime.Add(1) // the second event of its gather
	if diff := cmp.Diff(want, events, samePoints); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	wantEvents(t, s)
	closeStore(t, s)
}

func TestUndeliveredEventsAreRepeatedUnchangedAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s, records := open(t, dir)
	wantRecords(t, records)
	s.Append(Write{Set: set("e:1", `{"a":1}`), Events: eventsOf(1)})
	_, stored := wantEvents(t, s, 1)
	s.Append(Write{Set: map[string]json.RawMessage{"e:1": nil, "e:2": record(`[2]`), "e:3": record(`null`)}, Events: eventsOf(2, 3)})
	before, _ := wantEvents(t, s, 2, 3)
	id := s.ID()
	stored()
	stored() // a second call changes nothing
	kill(s)

	s, records = open(t, dir)
	wantRecords(t, records, "e:2 [2]")
	again, stored := wantEvents(t, s, 2, 3)
	if diff := cmp.Diff(before, again, samePoints); diff != "" {
		t.Errorf("events published again (-before +again):\n%s", diff)
	}
	stored()
	s.Append(Write{Events: eventsOf(4)})
	events, stored := wantEvents(t, s, 4)
	if got, want := identity(&events[0]), id+" 4"; got != want {
		t.Errorf("the next event is %s, want %s", got, want)
	}
	stored()
	closeStore(t, s)
	s, _ = open(t, dir)
	wantEvents(t, s)
	if diff := cmp.Diff([]int{1, 2, 3, 4}, numbers(s.Recent())); diff != "" {
		t.Errorf("recent events (-want +got):\n%s", diff)
	}
}

func TestStoreWithoutAPathKeepsEverythingFromStartToStop(t *testing.T) {
	var l testLog
	s, records := Open(Options{Log: l.logger()})
	wantRecords(t, records)
	s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
	_, stored := wantEvents(t, s, 1)
	stored()
	wantEvents(t, s)
	if got := len(s.Recent()); got != 1 {
		t.Errorf("%d recent events, want 1", got)
	}
	closeStore(t, s)
	l.want(t)
}

// Deliveries while the program stops are recorded, although the input is closed.
func TestDeliveryAfterCloseIsNoted(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Append(Write{Events: eventsOf(1, 2)})
	_, stored := wantEvents(t, s, 1, 2)
	closeStore(t, s)
	stored()
	s, _ = open(t, dir)
	wantEvents(t, s)
}

func TestRecentEventsAreTheLast2000(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := open(t, dir)
	waiting, _ := func() ([]metric.Point, func()) {
		s.Append(Write{Events: eventsOf(0)})
		return wantEvents(t, s, 0)
	}()
	for n := range 5 {
		var w Write
		for i := range 1000 {
			w.Events = append(w.Events, eventOf(1+1000*n+i))
		}
		s.Append(w)
		_, stored := s.Events(wait)
		stored()
	}
	check := func(s *Store) {
		t.Helper()
		got := numbers(s.Recent())
		if len(got) != 2000 || got[0] != 3001 || got[1999] != 5000 || !slices.IsSorted(got) {
			t.Errorf("%d recent events, from %d to %d, want 2000 from 3001 to 5000", len(got), got[0], got[len(got)-1])
		}
	}
	check(s)
	closeStore(t, s)
	s, _ = open(t, dir)
	check(s)
	again, _ := wantEvents(t, s, 0)
	if diff := cmp.Diff(waiting, again, samePoints); diff != "" {
		t.Errorf("published again (-before +again):\n%s", diff)
	}
	check(s)
}

func TestInvalidEventIsDroppedAlone(t *testing.T) {
	var l testLog
	s, _ := Open(Options{Log: l.logger()})
	events := eventsOf(1, 2, 3, 4)
	events[1].Time = time.Time{}
	events[2].Name = "\xff"
	events[3].Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	s.Append(Write{Events: events})
	wantEvents(t, s, 1)
	l.want(t, "ERROR invalid event dropped", "ERROR invalid event dropped", "ERROR invalid event dropped")
	if s.Dropped() != 3 {
		t.Errorf("%d dropped, want 3", s.Dropped())
	}
}

// At the limit, the events that outputs have queued are dropped first.
func TestOldestEventsAreDroppedAtTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 10,000 events")
	}
	dir := t.TempDir()
	var l testLog
	s, _ := Open(options(dir, &l))
	appendMany := func(from, n int) {
		var w Write
		for i := range n {
			w.Events = append(w.Events, eventOf(from+i))
		}
		s.Append(w)
	}
	appendMany(1, maxWaiting-10)
	s.Events(wait)
	appendMany(maxWaiting-9, 10)
	appendMany(maxWaiting+1, 5)
	if s.Dropped() != 5 {
		t.Errorf("%d dropped, want 5", s.Dropped())
	}
	appendMany(maxWaiting+6, maxWaiting)
	if s.Dropped() != 5+maxWaiting {
		t.Errorf("%d dropped, want %d", s.Dropped(), 5+maxWaiting)
	}
	events, _ := s.Events(wait)
	if got := numbers(events); len(got) != maxWaiting || got[0] != maxWaiting+6 {
		t.Errorf("%d events handed out, the first is %d", len(got), got[0])
	}
	l.want(t, "ERROR changes dropped: too many are undelivered")
	closeStore(t, s)
	s, _ = open(t, dir)
	events, _ = s.Events(wait)
	if got := numbers(events); len(got) != maxWaiting || got[0] != maxWaiting+6 {
		t.Errorf("%d events after a restart, the first is %d", len(got), got[0])
	}
}

func TestHistoryOfAnotherMachineIsDiscarded(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
	closeStore(t, s)
	id := s.ID()

	var l testLog
	o := options(dir, &l)
	o.MachineID = "clone"
	s, records := Open(o)
	wantRecords(t, records)
	wantEvents(t, s)
	if s.ID() == id {
		t.Error("the clone has the id of the image")
	}
	closeStore(t, s)
	l.want(t, "WARN history of another machine discarded, starting with an empty one")

	for _, machine := range []string{"clone", ""} { // an unknown machine id is not that of another machine
		var l testLog
		o = options(dir, &l)
		o.MachineID = machine
		again, _ := Open(o)
		if again.ID() != s.ID() {
			t.Errorf("machine id %q: the history was discarded again", machine)
		}
		l.want(t)
		closeStore(t, again)
	}
}

func TestFirstSeenTimesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	var l testLog
	o := options(dir, &l)
	if err := os.WriteFile(o.FirstSeen, []byte(`{"version":1,"first_seen":{"address=::,port=22":1790000000}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a kill before the first write loses nothing
		s, _ := open(t, dir)
		got, err := s.FirstSeen()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int64{"address=::,port=22": 1790000000}, got); diff != "" {
			t.Errorf("first-seen times (-want +got):\n%s", diff)
		}
		kill(s)
	}
	s, _ := open(t, dir)
	s.Append(Write{Set: set("e:1", `1`)})
	closeStore(t, s)
	if _, err := os.Lstat(o.FirstSeen); !os.IsNotExist(err) {
		t.Errorf("the file is there after the first write: %v", err)
	}
	if got, err := s.FirstSeen(); got != nil || err != nil {
		t.Errorf("read again: %v, %v", got, err)
	}
}

func TestDamagedFirstSeenTimesAreAnError(t *testing.T) {
	tests := []struct{ text, want string }{
		{text: `{"version":1,"first_seen":{"a`, want: "unexpected EOF"},
		{text: `{"version":2}`, want: "version 2, expected 1"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		var l testLog
		o := options(dir, &l)
		if err := os.WriteFile(o.FirstSeen, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := Open(o)
		got, err := s.FirstSeen()
		if want := "read " + o.FirstSeen + ": " + tt.want; got != nil || err == nil || err.Error() != want {
			t.Errorf("%v, %v, want %s", got, err, want)
		}
	}
}

func TestInheritedStoreGoesOn(t *testing.T) {
	dir := t.TempDir()
	var l testLog
	s, _ := Open(options(dir, &l))
	s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
	_, stored := wantEvents(t, s, 1)
	id := s.ID()
	closeStore(t, s)
	next := s.Inherit(options(dir, &l))
	stored() // for the batch that the old input published
	next.Append(Write{Set: set("e:2", `2`), Events: eventsOf(2)})
	events, _ := wantEvents(t, next, 2)
	if got, want := identity(&events[0]), id+" 2"; got != want {
		t.Errorf("the next event is %s, want %s", got, want)
	}
	closeStore(t, next)
	l.want(t)
	s, records := open(t, dir)
	wantRecords(t, records, "e:1 1", "e:2 2")
	wantEvents(t, s, 2)
}

func TestInheritedStoreMovesToAnotherDirectory(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	var l testLog
	s, _ := Open(options(from, &l))
	s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
	before, stored := wantEvents(t, s, 1)
	id := s.ID()
	closeStore(t, s)
	if err := os.WriteFile(options(to, &l).Path, []byte("of an earlier time"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Inherit(options(to, &l))
	closeStore(t, s)
	if s.ID() == id {
		t.Error("another file has the same id")
	}
	l.want(t, "WARN a foreign file in place of the history was renamed")
	if _, err := os.Lstat(options(from, &l).Path); !os.IsNotExist(err) {
		t.Errorf("the file at the old path: %v", err)
	}
	moved, records := open(t, to)
	wantRecords(t, records, "e:1 1")
	again, _ := wantEvents(t, moved, 1)
	if diff := cmp.Diff(before, again, samePoints); diff != "" {
		t.Errorf("published again (-before +again):\n%s", diff)
	}
	kill(moved)

	stored()
	s.Inherit(Options{Log: l.logger()})
	s.Append(Write{Events: eventsOf(2)})
	wantEvents(t, s, 2)
	if _, err := os.Lstat(options(to, &l).Path); err != nil {
		t.Errorf("without a state directory the file is removed: %v", err)
	}
}

// A second process, or an input that replaces an abandoned one, keeps its changes in memory.
func TestFileInUseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
	wantEvents(t, s, 1)
	var l testLog
	second, records := Open(options(dir, &l))
	wantRecords(t, records)
	second.Append(Write{Set: set("e:2", `2`), Events: eventsOf(2)})
	wantEvents(t, second, 2)
	closeStore(t, second)
	l.want(t, "WARN the history is in use by another process, changes are not saved")

	// If two start at the same time, the later one finds out when it writes.
	empty := t.TempDir()
	first, _ := open(t, empty)
	var l2 testLog
	second, _ = Open(options(empty, &l2))
	first.Append(Write{Set: set("e:1", `1`)})
	closeWrites(first)
	second.Append(Write{Set: set("e:2", `2`)})
	closeWrites(second)
	l2.want(t, "WARN cannot write the history: until it recovers, a crash may lose or repeat changes")
	kill(first)
	kill(second)
	_, records = open(t, empty)
	wantRecords(t, records, "e:1 1")
}

// fastDir returns a temporary directory, in memory if it can: Close gives up on a disk that is
// too busy to respond.
func fastDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sockwatch")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// closeWrites waits until nothing is being written.
func closeWrites(s *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockedAwait(wait, func() bool { return true })
}

// A testJournal can fail or hang before it writes.
type testJournal struct {
	journal
	mu    sync.Mutex
	fault func() error // nil: none
}

func (j *testJournal) write(l line) error {
	j.mu.Lock()
	fault := j.fault
	j.mu.Unlock()
	if fault != nil {
		if err := fault(); err != nil {
			return err
		}
	}
	return j.journal.write(l)
}

func (j *testJournal) set(fault func() error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.fault = fault
}

// inject injects faults into the journal of a store.
func inject(s *Store) *testJournal {
	j := &testJournal{journal: s.journal}
	s.journal = j
	return j
}

func TestHangingDiskDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var l testLog
		s, _ := Open(options(dir, &l))
		answer := make(chan struct{})
		inject(s).set(func() error { <-answer; return nil })
		began := time.Now()
		s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
		s.Append(Write{Set: set("e:1", `2`), Events: eventsOf(2)})
		if events, _ := s.Events(2 * time.Second); len(events) > 0 {
			t.Errorf("events %v are handed out before they are written", numbers(events))
		}
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("waited for %v, want 2 s", waited)
		}
		l.want(t)
		time.Sleep(slowWrite)
		for range 3 {
			s.Events(0)
		}
		l.want(t, "WARN cannot write the history, the disk is not responding: changes wait for it")
		began = time.Now()
		err := s.Close()
		if want := "write " + s.options.Path + ": the disk is not responding"; err == nil || err.Error() != want {
			t.Errorf("Close: %v, want %s", err, want)
		}
		if waited := time.Since(began); waited != closeWait {
			t.Errorf("Close waited for %v, want %v", waited, closeWait)
		}
		s.Inherit(options(dir, &l)) // a reload takes it over unchanged
		close(answer)
		wantEvents(t, s, 1, 2)
		closeStore(t, s)
		s, records := open(t, dir)
		wantRecords(t, records, "e:1 2")
		wantEvents(t, s, 1, 2)
	})
}

// The state directory moves away from a disk that hangs. When that disk responds again,
// nothing in the old file matters.
func TestMoveAwayFromAHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := t.TempDir(), t.TempDir()
		var l testLog
		s, _ := Open(options(from, &l))
		answer := make(chan struct{})
		inject(s).set(func() error { <-answer; return nil })
		s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
		if err := s.Close(); err == nil {
			t.Error("Close did not report the disk")
		}
		s.Inherit(options(to, &l))
		events, stored := wantEvents(t, s, 1)
		if id, _ := events[0].Field("history"); id.AsString() != s.ID() {
			t.Errorf("the event has the history %v, want %s", id, s.ID())
		}
		stored()
		close(answer)
		synctest.Wait()
		closeStore(t, s)
		s, records := open(t, to)
		wantRecords(t, records, "e:1 1")
		wantEvents(t, s)
	})
}

// The events of a failed write are published, with an id that no file uses again.
func TestFailedWriteStillPublishesItsEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var l testLog
		s, _ := Open(options(dir, &l))
		s.Append(Write{Set: set("e:1", `1`), Events: eventsOf(1)})
		wantEvents(t, s, 1)
		id := s.ID()
		j := inject(s)
		j.set(func() error { return unix.EIO })
		var failed []string
		for n := 2; n <= 3; n++ {
			s.Append(Write{Set: set("e:1", fmt.Sprint(n)), Events: eventsOf(n)})
			events, _ := wantEvents(t, s, n)
			failed = append(failed, identity(&events[0]))
		}
		l.want(t, "WARN cannot write the history: until it recovers, a crash may lose or repeat changes")
		if strings.HasPrefix(failed[0], id) || strings.HasPrefix(failed[1], id) {
			t.Errorf("events that are not saved are %v: their id is that of the file, %s", failed, id)
		}
		j.set(nil)
		s.Events(0)
		synctest.Wait()
		wantEvents(t, s)
		time.Sleep(retryEvery)
		s.Events(0)
		synctest.Wait()
		l.want(t, "WARN cannot write the history: until it recovers, a crash may lose or repeat changes", "INFO writing the history resumed")
		kill(s)

		s, records := open(t, dir)
		wantRecords(t, records, "e:1 3")
		again, _ := wantEvents(t, s, 1, 2, 3)
		if diff := cmp.Diff(failed, []string{identity(&again[1]), identity(&again[2])}); diff != "" {
			t.Errorf("published again (-before +again):\n%s", diff)
		}
	})
}

// Unwritten changes use bounded memory, however long the disk fails.
func TestLongFailureIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes very many events")
	}
	dir := fastDir(t)
	var l testLog
	s, _ := Open(options(dir, &l))
	s.Append(Write{Events: eventsOf(0)})
	closeWrites(s)
	j := inject(s)
	j.set(func() error { return unix.ENOSPC })
	const batch = 50
	for n := batch; n <= 2*maxRecent; n += batch {
		w := Write{Set: set("e:1", fmt.Sprint(n))}
		for i := n - batch + 1; i <= n; i++ {
			w.Events = append(w.Events, eventOf(i))
		}
		s.Append(w)
		closeWrites(s)
		if _, stored := s.Events(wait); stored != nil {
			stored()
		}
		s.mu.Lock()
		if got := s.pending.size(); got > maxRecent+2*batch {
			t.Fatalf("%d changes are kept after %d writes that failed", got, n)
		}
		s.mu.Unlock()
	}
	s.Append(Write{Events: eventsOf(2*maxRecent + 1)})
	j.set(nil)
	closeStore(t, s)
	s, records := open(t, dir)
	wantRecords(t, records, fmt.Sprint("e:1 ", 2*maxRecent))
	wantEvents(t, s, 2*maxRecent+1)
	if got := numbers(s.Recent()); len(got) != maxRecent || got[0] != maxRecent+2 {
		t.Errorf("%d recent events, the first is %d", len(got), got[0])
	}
}

// Events that are appended while a write fails are not handed out before their own write has
// ended.
func TestEventsOfTheNextWriteWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var l testLog
		s, _ := Open(options(dir, &l))
		answers := make(chan error)
		inject(s).set(func() error { return <-answers })
		s.Append(Write{Events: eventsOf(1)})
		synctest.Wait()
		s.Append(Write{Events: eventsOf(2)})
		answers <- unix.EIO
		synctest.Wait()
		first, _ := s.Events(0)
		if diff := cmp.Diff([]int{1}, numbers(first)); diff != "" {
			t.Errorf("after the first write (-want +got):\n%s", diff)
		}
		answers <- nil
		wantEvents(t, s, 2)
		kill(s)
		s, _ = open(t, dir)
		wantEvents(t, s, 1, 2)
	})
}

func TestFullDiskLosesNoEvent(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("sockwatch-test", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var l testLog
	s, _ := Open(options(dir, &l))
	s.Append(Write{Set: set("e:0", `0`), Events: eventsOf(0)})
	wantEvents(t, s, 0)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for page := make([]byte, 4096); ; {
		if _, err := f.Write(page); err != nil {
			break
		}
	}
	f.Close()
	identities := map[string]int{}
	for n := 1; n <= 40; n++ { // the file's page has space for some of them
		s.Append(Write{Set: set("e:0", fmt.Sprint(n)), Events: eventsOf(n)})
		events, _ := wantEvents(t, s, n)
		identities[identity(&events[0])] = n
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.Append(Write{Set: set("e:0", `41`)})
	closeStore(t, s)
	l.want(t, "WARN cannot write the history: until it recovers, a crash may lose or repeat changes", "INFO writing the history resumed")
	s, records := open(t, dir)
	wantRecords(t, records, "e:0 41")
	events, _ := s.Events(wait)
	if len(events) != 41 {
		t.Errorf("%d events, want 41", len(events))
	}
	for i, n := range numbers(events) {
		if n != i || n > 0 && identities[identity(&events[i])] != n {
			t.Errorf("event %d is %d, %s", i, n, identity(&events[i]))
		}
	}
}

// BenchmarkEvents measures how long a gather waits without changes, and with 5,000 changes.
func BenchmarkEvents(b *testing.B) {
	var many Write
	many.Set = map[string]json.RawMessage{}
	for n := range 5000 {
		many.Events = append(many.Events, eventOf(n))
		many.Set[fmt.Sprint("e:", n)] = record(`{"process":"nginx","user":"www-data","unit":"nginx.service","time":"2026-11-26T03:12:00Z"}`)
	}
	b.Run("none", func(b *testing.B) {
		s, _ := Open(options(b.TempDir(), new(testLog)))
		s.Append(many)
		s.Events(wait)
		b.ReportAllocs()
		for b.Loop() {
			s.Events(wait)
		}
	})
	b.Run("5000", func(b *testing.B) {
		s, _ := Open(options(b.TempDir(), new(testLog)))
		b.ReportAllocs()
		for b.Loop() {
			s.Append(many)
			_, stored := s.Events(wait)
			stored()
		}
	})
	b.Run("append 5000", func(b *testing.B) {
		s, _ := Open(Options{Log: new(testLog).logger()})
		b.ReportAllocs()
		for b.Loop() {
			s.Append(many)
			_, stored := s.Events(wait)
			stored()
		}
	})
	b.Run("open", func(b *testing.B) {
		dir := b.TempDir()
		s, _ := Open(options(dir, new(testLog)))
		s.Append(many)
		s.Close()
		for b.Loop() {
			s, _ := Open(options(dir, new(testLog)))
			s.journal.close()
		}
	})
}
