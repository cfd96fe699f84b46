package expect

import (
	"fmt"
	"testing"
	"time"
)

// benchmarkRules returns n rules, of which every second is for a port of its own.
func benchmarkRules(b *testing.B, n int) *Rules {
	text := ""
	for i := range n {
		port := fmt.Sprint(1000 + i)
		if i%2 == 1 {
			port = `"1-65535"`
		}
		text += fmt.Sprintf("[[expect]]\nname = 'r%d'\nport = %s\nprocess = 'p%d'\nuser = 'root'\n", i, port, i)
	}
	return compile(b, "unlisted = 'unexpected'\n"+text)
}

func benchmarkLook(r *Rules, n int) *Look {
	l := &Look{Moment: Moment{Time: now, Mono: time.Hour, Boot: "b"}}
	for i := range n {
		listener := nginx(uint16(1000+i), by(fmt.Sprintf("p%d", i)))
		l.Listeners = append(l.Listeners, Judged{listener, r.Verdict(listener, now)})
	}
	return l
}

// Of one listener, with 100 rules.
func BenchmarkVerdict(b *testing.B) {
	r := benchmarkRules(b, 100)
	l := nginx(1010, by("p10"))
	for b.Loop() {
		r.Verdict(l, now)
	}
}

func BenchmarkWhy(b *testing.B) {
	r := benchmarkRules(b, 100)
	l := nginx(9999, by("other"))
	for b.Loop() {
		r.Why(l, now)
	}
}

// Of 5,000 listeners, of which 4,900 are not expected, with 100 rules.
func BenchmarkEvaluate(b *testing.B) {
	r := benchmarkRules(b, 100)
	look := benchmarkLook(r, 5000)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(look)
	for b.Loop() {
		t.Evaluate(look)
	}
}

// Of 5,000 listeners that all are expected.
func BenchmarkEvaluateAllowed(b *testing.B) {
	r := compile(b, "[[allow]]\nport = '1-65535'")
	look := benchmarkLook(r, 5000)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(look)
	for b.Loop() {
		t.Evaluate(look)
	}
}

func BenchmarkUnchanged(b *testing.B) {
	r := benchmarkRules(b, 100)
	t := NewTracker(r, trackerOptions)
	t.Evaluate(benchmarkLook(r, 5000))
	m := Moment{Time: now, Mono: time.Hour, Boot: "b"}
	for b.Loop() {
		if t.Unchanged(m) {
			b.Fatal("something is due")
		}
	}
}
