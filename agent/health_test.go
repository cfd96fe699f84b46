package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"sockwatch/agent/health"
	"sockwatch/agent/metric"
)

// The counters of the agent say since when they count: an input's or output's since it was
// added, also after a reload.
func TestCountersHaveStartTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.agent.Tags = map[string]string{"host": "a"} // so that the points are transformed
		r.agent.input("in", counting())
		r.agent.push("out", &fakePusher{})
		page := newFakeEndpoint()
		r.agent.pull("page", page)
		began := time.Now()
		r.start()
		board := <-page.board
		after(time.Minute)
		next := r.sibling()
		next.Tags = r.agent.Tags
		next.input("in", counting()).Options.Alias = "changed"
		next.input("later", counting())
		next.push("out", &fakePusher{}).Settings = &fakeSettings{Version: 2}
		next.pull("page", page)
		reloaded := time.Now()
		r.reloadTo(next, nil)
		after(time.Minute)
		want := map[string]time.Time{
			`sockwatch_input{host="a",input="in"}`: began, `sockwatch_input{host="a",input="later"}`: reloaded,
			`sockwatch_output{host="a",output="out"}`: began, `sockwatch_output{host="a",output="page"}`: began,
			`sockwatch_config{host="a"}`: began,
		}
		counters := 0
		for _, b := range board.Latest() {
			for _, p := range b.Points {
				for _, d := range health.Descs {
					if _, ok := p.Field(d.Field); !ok || d.Name != p.Name || d.Type != metric.Counter {
						continue
					}
					counters++
					if start, ok := want[p.Series()]; !ok || !p.Start.Equal(start) {
						t.Errorf("%s.%s counts since %v, want %v", p.Series(), d.Field, p.Start, start)
					}
				}
			}
		}
		if counters != 2*5+7+1+1 {
			t.Errorf("%d counters, want 19", counters)
		}
		r.end()
	})
}
