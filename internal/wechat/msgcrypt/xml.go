package msgcrypt

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrXML refuses a document: not well formed, not UTF-8, with a DOCTYPE, a namespace, too deep, too
// long, or with an element twice that may stand once (security.md §5).
var ErrXML = errors.New("msgcrypt: XML refused")

const (
	maxDepth  = 8
	maxTokens = 200
)

// Envelope is the body of a push before decryption. AppID is set in component events, ToUserName in
// merchants' messages (platform.md §1); both are the sender's unverified word.
type Envelope struct{ ToUserName, AppID, Encrypt string }

// ParseEnvelope reads the body of a push. Elements beside the three are passed over. The size of the
// body is the caller's to limit. Errors wrap ErrXML.
func ParseEnvelope(body []byte) (Envelope, error) {
	m, err := parse(body, "Encrypt", "AppId", "ToUserName")
	if err != nil {
		return Envelope{}, err
	}
	e := Envelope{ToUserName: m.Get("ToUserName"), AppID: m.Get("AppId"), Encrypt: m.Get("Encrypt")}
	if e.Encrypt == "" {
		return Envelope{}, fmt.Errorf("%w: no Encrypt", ErrXML)
	}
	return e, nil
}

// Message is a decrypted push: the elements directly below its root, in the order they came.
type Message struct{ fields []field }

type field struct{ name, value string }

// ParseMessage reads a decrypted push. Element names are case-sensitive (AppId and AuthorizerAppid
// differ), values are kept to the last blank, an element that holds others keeps only its own text.
// A repeated audit_id or status is refused, of any other element the first counts. Errors wrap ErrXML.
func ParseMessage(msg []byte) (Message, error) {
	return parse(msg, "audit_id", "status")
}

// Get is the text of the first element of that name, or "".
func (m Message) Get(name string) string {
	for _, f := range m.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// All yields name and text of each element in document order.
func (m Message) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, f := range m.fields {
			if !yield(f.name, f.value) {
				return
			}
		}
	}
}

func parse(doc []byte, once ...string) (Message, error) {
	refuse := func(why string) (Message, error) { return Message{}, fmt.Errorf("%w: %s", ErrXML, why) }
	if !utf8.Valid(doc) {
		return refuse("not UTF-8")
	}
	var (
		m      Message
		text   strings.Builder
		d      = xml.NewDecoder(bytes.NewReader(doc))
		depth  int
		closed bool
	)
	for n := 0; ; n++ {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !closed {
				return refuse("no root element")
			}
			return m, nil
		}
		if err != nil {
			return refuse("not well formed") // the parser's own text may quote the document
		}
		if n >= maxTokens {
			return refuse("too many tokens")
		}
		switch t := tok.(type) {
		case xml.Directive:
			return refuse("a directive")
		case xml.ProcInst:
			if t.Target != "xml" || n != 0 {
				return refuse("a processing instruction")
			}
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return refuse("too deep")
			}
			switch {
			case t.Name.Space != "":
				return refuse("a namespace")
			case depth == 1 && (closed || t.Name.Local != "xml"):
				return refuse("root is not one xml element")
			case depth == 2:
				text.Reset()
			}
		case xml.CharData:
			switch {
			case depth == 0 && len(bytes.TrimSpace(t)) > 0:
				return refuse("text outside the root")
			case depth == 2:
				text.Write(t)
			}
		case xml.EndElement:
			if depth == 2 {
				for _, name := range once {
					if name == t.Name.Local && m.has(name) {
						return refuse("repeated " + strconv.Quote(name))
					}
				}
				m.fields = append(m.fields, field{t.Name.Local, text.String()})
			}
			if depth--; depth == 0 {
				closed = true
			}
		}
	}
}

func (m Message) has(name string) bool {
	for _, f := range m.fields {
		if f.name == name {
			return true
		}
	}
	return false
}

// BuildReply is a passive reply (platform.md §7.3): msg encrypted for receiveID and signed, in the
// case and with the one bare element that WeChat expects. Use the key that opened the push.
func BuildReply(k Key, token, receiveID string, random [16]byte, timestamp int64, nonce string, msg []byte) []byte {
	ts := strconv.FormatInt(timestamp, 10)
	encrypt := k.Encrypt(random, msg, receiveID)
	return fmt.Appendf(nil,
		"<xml><Encrypt><![CDATA[%s]]></Encrypt><MsgSignature><![CDATA[%s]]></MsgSignature><TimeStamp>%s</TimeStamp><Nonce>%s</Nonce></xml>",
		encrypt, Signature(token, ts, nonce, encrypt), ts, CDATA(nonce))
}

// CDATA is s as a CDATA section, or as several where s holds the end mark.
func CDATA(s string) string {
	return "<![CDATA[" + strings.ReplaceAll(s, "]]>", "]]]]><![CDATA[>") + "]]>"
}
