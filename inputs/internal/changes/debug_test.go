package changes
import ("testing";"math/rand";"fmt";"os";"strconv";"encoding/json")
func TestDebug(t *testing.T) {
	seed,_ := strconv.ParseInt(os.Getenv("SEED"),10,64)
	if seed==0 {t.Skip()}
	w := &randomHost{simHost: newSimHost(t), random: rand.New(rand.NewSource(seed))}
	debugLook = func(h *simHost, n int) {
		w.log("look %d: mono %v", len(w.past), h.now.Mono)
		for _, s := range h.sockets { if os.Getenv("PORT")=="" || strconv.Itoa(int(s.at.Port))==os.Getenv("PORT") { who:=""; if len(s.holders)>0 {who=s.holders[0].name}; w.log("   %s %d %d %s", s.at.Address, s.id.Cookie, s.status, who)} }
		for _, e := range h.events[n:] { if strconv.Itoa(int(0))=="0" && (os.Getenv("PORT")=="" || e.Tag("port")==os.Getenv("PORT")) { w.log("   EVENT %s %v", line(&e), e.Time.UTC()) } }
		for at, e := range h.tracker.endpoints { if strconv.Itoa(int(at.Port))==os.Getenv("PORT") { b,_ := json.Marshal(e.record.Owners); _ = b; k := ""; for _,o := range e.Owners { k += fmt.Sprint(o.Keys) + "; "}; w.log("   state %s untold %t gone %v change %v owners %s lost %v", at.Address, e.Untold, e.Gone, e.Change, k, e.Lost) } }
	}
	w.play()
	fmt.Println(w.story)
}
