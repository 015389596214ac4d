package faults

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/jpeg"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A gateway is killed at each step of an upload. What WeChat gave is known
// where the answer was written down; elsewhere the upload has failed, and the
// caller, who holds the file, sends it again.
func TestKilledInAnUpload(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	for i, d := range deaths {
		var b bytes.Buffer
		if err := jpeg.Encode(&b, image.NewGray(image.Rect(0, 0, 8+i, 8)), nil); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b.Bytes())
		hash, file, key := hex.EncodeToString(sum[:]), world.Form{File: b.Bytes()}, fmt.Sprint("upload-", i)
		p.restart(d.failpoint)
		p.dying("POST", "/v1/media/images", file, key)
		if d.noSpool {
			p.loseSpool()
		}
		if d.second != "" {
			p.Launch(p.environ(d.second)).WaitExit(20 * time.Second)
		}
		p.start("")
		var again *world.Answer
		p.Eventually("the same key gives the image", func() error {
			if again = p.c.Do("POST", "/v1/media/images", file, "Idempotency-Key", key); again.Status != 201 {
				return fmt.Errorf("%d %s", again.Status, again.Body)
			}
			return nil
		})
		given, want := issued(p.World, "image_url", hash), 1
		if d.forgotten {
			want = 2
		}
		if len(given) != want || again.Get("url") != given[len(given)-1] || (again.Header.Get("Idempotency-Replayed") == "true") == (d.forgotten || d.unsent) {
			t.Errorf("%s: WeChat gave %v: %v %s", d.name(), given, again.Header, again.Body)
		}
		if op := p.c.Do("GET", "/v1/operations/"+again.Header.Get("Operation-Id"), nil).Want(200); op.Get("status") != "succeeded" || op.Get("idempotency_key") != key {
			t.Errorf("%s: %s", d.name(), op.Body)
		}
	}
}
