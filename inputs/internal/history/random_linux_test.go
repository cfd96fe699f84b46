package history

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/soak"
)

// A moodyJournal randomly injects the faults of a disk in front of a real file.
type moodyJournal struct {
	journal
	rng  *rand.Rand
	path string
}

var errMood = errors.New("mood")

func (j *moodyJournal) write(l line) error {
	time.Sleep(time.Duration(j.rng.IntN(3000)) * time.Millisecond)
	switch j.rng.IntN(12) {
	case 0:
		return unix.ENOSPC
	case 1:
		os.Remove(j.path)
		return errMood
	case 2: // somebody else interferes
		os.Truncate(j.path, int64(j.rng.IntN(100)))
		return errMood
	}
	return j.journal.write(l)
}

// Random histories of one input over many runs, on a disk that fails, with outputs that
// confirm events at random, and kills at any step. Each event is handed out at least once,
// or, if a kill came first, its record is unchanged. Repeated events are equal. No two events
// share an identity. The records are not older than the last events that were handed out
// while the disk worked.
func TestRandomRuns(t *testing.T) {
	for seed := range uint64(soak.Times(10)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			dir := t.TempDir()
			published := map[string]metric.Point{} // by identity
			identities := map[int][]string{}       // by number; a failed write may add another one
			confirmed := map[int]bool{}
			n, handed := 0, 0
			healthy := rng.IntN(2) == 0 // a disk that never fails
			for run := range 8 {
				var l testLog
				s, records := Open(options(dir, &l))
				known := 0 // the number of the last write in the file
				if r, ok := records["last"]; ok {
					fmt.Sscan(string(r), &known)
				}
				if healthy {
					l.want(t)
					if known < handed {
						t.Fatalf("seed %d, run %d: the records are those of write %d, though events of %d were handed out", seed, run, known, handed)
					}
				}
				if !healthy {
					s.journal = &moodyJournal{journal: s.journal, rng: rand.New(rand.NewPCG(seed, uint64(100+run))), path: s.options.Path}
				} else {
					s.journal = &testJournal{journal: s.journal}
				}
				n = max(n, known)
				if healthy {
					n = known // what was not written happens again
				}
				for range rng.IntN(40) {
					switch rng.IntN(8) {
					case 0, 1, 2:
						n++
						s.Append(Write{Set: set("last", fmt.Sprint(n)), Events: eventsOf(n)})
					case 3:
						time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
					case 4:
						if rng.IntN(10) == 0 {
							_ = s.Close() // as a reload does
							s.Inherit(options(dir, &l))
						}
					default:
						events, stored := s.Events(time.Duration(rng.IntN(3)) * time.Second)
						for _, e := range events {
							id, number := identity(&e), numbers([]metric.Point{e})[0]
							handed = max(handed, number)
							if before, ok := published[id]; ok {
								if diff := cmp.Diff(before, e, samePoints); diff != "" {
									t.Fatalf("seed %d, run %d: %s is published again, otherwise (-before +again):\n%s", seed, run, id, diff)
								}
								if healthy && confirmed[number] {
									t.Fatalf("seed %d, run %d: %s is published again after it was confirmed", seed, run, id)
								}
							}
							published[id] = e
							if !slices.Contains(identities[number], id) {
								identities[number] = append(identities[number], id)
							}
						}
						if stored != nil && rng.IntN(2) == 0 {
							stored()
							closeWrites(s) // else a kill may undo it
							for _, number := range numbers(events) {
								confirmed[number] = true
							}
						}
					}
				}
				if rng.IntN(3) == 0 {
					_ = s.Close() // fails if the disk fails
				}
				kill(s)
				synctest.Wait()
			}
			if !healthy {
				return // an event that was never handed out may be lost with the disk
			}
			s, _ := Open(options(dir, new(testLog)))
			events, _ := s.Events(wait)
			for _, e := range events {
				identities[numbers([]metric.Point{e})[0]] = []string{identity(&e)}
			}
			var want []int
			for i := range n {
				want = append(want, i+1)
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(identities))); n > 0 && diff != "" {
				t.Fatalf("seed %d: handed out (-want +got):\n%s", seed, diff)
			}
			kill(s)
			leftovers, _ := filepath.Glob(filepath.Join(dir, "*"))
			if want := []string{s.options.Path}; n > 0 && !slices.Equal(leftovers, want) {
				t.Errorf("seed %d: files %v, want %v", seed, leftovers, want)
			}
		})
	}
}
