package sandbox

import (
	"os"
	"regexp"
	"testing"
)

// The README names every control call, setting, default and magic value there is.
func TestREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		DefaultComponentAppID, DefaultComponentSecret, DefaultMessageToken, DefaultEncodingAESKey,
		DemoOfficialAccount, DemoMiniProgram, NoStoreSetsAccount, LeavingAccount, MigratingAccount,
		sampleMapPOI, sampleUpdate, sampleSearch, sampleMediaID, sampleCoverID, phoneRejected, phoneStays,
		nameBlocked, nameIllegal, namePicture, nameNotAdded, nameNotAudited, nameNoID, nameNeverAudited, pathUnreleased,
	} {
		contains(t, string(text), "`"+want+"`")
	}
	source, err := os.ReadFile("model.go")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)type settings struct \{(.*?)\n\}`).FindSubmatch(source)[1]
	for _, m := range regexp.MustCompile(`json:"(\w+)"`).FindAllSubmatch(block, -1) {
		contains(t, string(text), "| `"+string(m[1])+"` |")
	}
	routes, err := os.ReadFile("control.go")
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`"(GET|POST|DELETE) /_sandbox/([^"]*)"`).FindAllStringSubmatch(string(routes), -1)
	if len(calls) < 25 {
		t.Fatalf("found %d control calls", len(calls))
	}
	for _, m := range calls {
		path := regexp.QuoteMeta(m[2])
		path = regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(path, `[\w.-]+`)
		flag := map[string]string{"GET": `curl "?`, "POST": `curl -X POST "?`, "DELETE": `curl -X DELETE "?`}[m[1]]
		if !regexp.MustCompile(flag + `\$S/` + path + `([ "?\n]|$)`).MatchString(string(text)) {
			t.Errorf("README.md has no curl for %s %s", m[1], m[2])
		}
	}
}
