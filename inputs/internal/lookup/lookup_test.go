package lookup

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var testOptions = Options{Workers: 3, Timeout: 10 * time.Second, Wait: time.Second, Again: 10 * time.Minute, Retry: time.Minute}

// update calls Update and checks its result, the name of key 1, and how long it took.
func update(t *testing.T, c *Cache[int], changed bool, name string, took time.Duration) {
	t.Helper()
	began := time.Now()
	got := c.Update(t.Context(), map[int]bool{1: true}, began)
	if d := time.Since(began); got != changed || c.Name(1) != name || d != took {
		t.Errorf("changed %v, name %q after %v, expected %v, %q after %v", got, c.Name(1), d, changed, name, took)
	}
}

func TestNamesChangeWhenTheyAreLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var name string
		var err error
		lookups := 0
		c := New(func(context.Context, int) (string, error) {
			lookups++
			return name, err
		}, testOptions)
		defer c.Close()
		update(t, c, false, "", 0)
		name = "late"
		update(t, c, false, "", 0)
		time.Sleep(testOptions.Again)
		update(t, c, true, "late", 0)
		update(t, c, false, "late", 0)
		if lookups != 2 {
			t.Errorf("%d lookups, expected 2", lookups)
		}
		name, err = "", errors.New("the service is down")
		time.Sleep(testOptions.Again)
		update(t, c, false, "late", 0)
		name, err = "other", nil
		update(t, c, false, "late", 0)
		time.Sleep(testOptions.Retry)
		update(t, c, true, "other", 0)
		name = ""
		time.Sleep(testOptions.Again)
		update(t, c, true, "", 0)
		if c.Update(t.Context(), nil, time.Now()); len(c.entries) != 0 {
			t.Errorf("%d names are kept of keys that are gone", len(c.entries))
		}
	})
}

func TestSlowServiceIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(func(ctx context.Context, _ int) (string, error) {
			time.Sleep(3 * time.Second)
			return "name", nil
		}, testOptions)
		defer c.Close()
		update(t, c, false, "", time.Second)
		update(t, c, false, "", 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		update(t, c, true, "name", 0)
		time.Sleep(testOptions.Again)
		update(t, c, false, "name", 0)
	})
}

func TestUpdateEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(func(ctx context.Context, _ int) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}, testOptions)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		c.Update(ctx, map[int]bool{1: true}, began)
		c.Close() // ends the lookup
		if d := time.Since(began); d != time.Millisecond {
			t.Errorf("it took %v", d)
		}
	})
}

func TestRoundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, lookups atomic.Int32
		c := New(func(ctx context.Context, key int) (string, error) {
			lookups.Add(1)
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-ctx.Done()
			return "", ctx.Err()
		}, testOptions)
		defer c.Close()
		keys := make(map[int]bool)
		for key := range 100 {
			keys[key] = true
		}
		c.Update(t.Context(), keys, time.Now())
		time.Sleep(testOptions.Timeout)
		synctest.Wait()
		if c.running() || lookups.Load() != 3 || most.Load() != 3 || len(c.entries) != 100 {
			t.Errorf("running %v, %d lookups, %d at a time, %d entries; expected 3 lookups at a time and in all, and 100 entries",
				c.running(), lookups.Load(), most.Load(), len(c.entries))
		}
	})
}
