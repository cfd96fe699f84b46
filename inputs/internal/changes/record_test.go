package changes

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/inputs/internal/inet"

	"github.com/google/go-cmp/cmp"
)

func TestEncodedRecordIsReadAsItWas(t *testing.T) {
	m := mark{Time: time.Unix(1_800_000_000, 5).UTC(), Mono: 7, Window: 8, WhileDown: true, Boot: true}
	full := record{
		Unreported: true, Returns: true, FirstSeen: 1, Changed: 2,
		Owners: []*owner{
			{},
			{
				Keys: []Key{{Process: `a"\x41é`, UID: 33, Unit: "u.service", UserUnit: "v.service", InContainer: true}, {}}, FirstSeen: 9,
				Shown: shown{
					UID: 33, Process: process{PID: 5, Start: 1<<64 - 1},
					Facts: Facts{
						Exe: "/bin/\x01", ExeDeleted: true, ExeSHA256: "ab", Start: time.Unix(1, 5).UTC(),
						Parent: Parent{PID: 1, Process: "p", Exe: "/p"}, LoginUID: 1<<32 - 1, HasLoginUID: true, Cmdline: "<a> &",
					},
					Tags: metric.NewTags("a", "b", "c", "d"), Verdict: Verdict{Expected: "no", Rule: "r", Why: "w"},
				},
				Reported: &shown{Process: process{PID: 4, Start: 6}, Facts: Facts{Exe: "/old"}, Tags: metric.NewTags("a", "b")},
			},
		},
		Sockets: []socket{
			{ID: SocketID{Netns: 1, Cookie: 2, Inode: 3}, Owner: 1, Processes: []process{{PID: 1, Start: 2}, {PID: 3}}, Reported: true, Activated: true},
			{ID: SocketID{Netns: 2}},
		},
		Exposure: exposure{Reported: inet.Public, Known: true, Next: inet.Private, Since: &m},
		Gone:     &absence{mark: m, Last: Moment{Time: time.Unix(3, 0).UTC(), Mono: 4, Uptime: 5, Boot: "b"}},
		Change:   &change{mark: m, Down: 6},
		Lost:     &loss{mark: m, Known: true},
	}
	for _, want := range []record{full, {}, {Owners: []*owner{{}}}} {
		text := encode(&want)
		var got record
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(owner{}, absence{}, change{}, loss{})); diff != "" {
			t.Errorf("record (-want +got)\n%s", diff)
		}
	}
}

func TestDamagedRecordsAreSkipped(t *testing.T) {
	h := newSimHost(t)
	h.listen("0.0.0.0:22", h.process("sshd"))
	h.listen("0.0.0.0:80", h.process("nginx"))
	h.pass(time.Minute)
	h.records["e:80 0.0.0.0 "] = json.RawMessage(`{"o":[{"k":`)
	h.records["e:x"] = json.RawMessage(`{}`)
	h.records["e:81 0.0.0.0 "] = json.RawMessage(`{"o":[]}`)
	h.records["e:82 0.0.0.0 "] = json.RawMessage(`{"o":[{}],"s":[{"o":1}]}`)
	h.records["r:of another package"] = json.RawMessage(`{`)
	h.tracker = New(h.options)
	if damaged := h.tracker.Restore(h.records); damaged != 4 {
		t.Errorf("%d damaged records, want 4", damaged)
	}
	h.changed = true
	h.scan()
	h.wants("opened 0.0.0.0:80 nginx")
}

func TestRecordsWithoutAScanAreABaseline(t *testing.T) {
	h := newSimHost(t)
	h.listen("0.0.0.0:22", h.process("sshd"))
	h.pass(time.Minute)
	delete(h.records, viewKey)
	h.restore()
	h.closeAll()
	h.pass(5 * time.Minute)
	h.wants()
}

func FuzzRestore(f *testing.F) {
	h := newSimHost(&testing.T{})
	systemd := h.systemd()
	s := h.listen("0.0.0.0:22", systemd, h.process("sshd"))
	h.listen("0.0.0.0:22", h.process("other"))
	h.scan()
	h.close(s)
	h.listen("[::]:80", h.process("nginx")).status = Pending
	h.sleep(10*time.Second, 0)
	h.scan()
	for _, key := range slices.Sorted(maps.Keys(h.records)) {
		f.Add(key, string(h.records[key]))
	}
	f.Add("e:22 0.0.0.0 ", `{"closed":5}`)
	scan := string(h.records[viewKey])
	f.Fuzz(func(t *testing.T, key, text string) {
		h := newSimHost(t)
		h.now.Mono += time.Hour
		tracker := New(h.options)
		tracker.Restore(map[string]json.RawMessage{viewKey: json.RawMessage(scan), key: json.RawMessage(text)})
		for _, open := range []bool{true, false, true} {
			h.closeAll()
			if at, ok := parseRecordKey(key); ok && open {
				h.sockets = append(h.sockets, &simSocket{at: at, id: SocketID{Netns: 1, Cookie: 1}, status: Known, holders: []*simProcess{h.process("p")}})
			}
			snapshot := &Snapshot{Moment: h.now, Namespaces: h.namespaces}
			for _, s := range h.sockets {
				snapshot.Sockets = append(snapshot.Sockets, h.socket(s))
			}
			result := tracker.Observe(snapshot)
			for key, record := range result.Set {
				if record != nil && !json.Valid(record) {
					t.Errorf("record %q is %q", key, record)
				}
			}
			h.sleep(2*time.Minute, 0)
		}
	})
}
