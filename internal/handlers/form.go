package handlers

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// A form with a file: one that is a megabyte, and some texts around it (design
// security.md §9).
const (
	maxFile = wechat.MaxImage
	maxForm = maxFile + 64<<10
	maxText = 1 << 10
)

// A form is the body of an operation that takes a file.
type form struct {
	texts map[string]string
	file  []byte
}

const formType = "multipart/form-data"

// readForm reads a form whole and checks its members as those of a JSON object
// are checked: the validator doesn't look at forms.
func (o *operation) readForm(c echo.Context, s *state) error {
	r := c.Request()
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != formType || params["boundary"] == "" {
		return problem.Of(problem.CodeUnsupportedMediaType)
	}
	if r.ContentLength > maxForm {
		c.Response().Header().Set("Connection", "close")
		return fileTooLarge(s)
	}
	s.form = &form{texts: map[string]string{}}
	members := map[string]any{}
	parts := multipart.NewReader(http.MaxBytesReader(c.Response(), r.Body, maxForm), params["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return malformedForm(s, err)
		}
		if err := s.takePart(o.form, part, members); err != nil {
			return err
		}
	}
	if err := o.form.VisitJSON(members, openapi3.MultiErrors()); err != nil {
		f := findings{state: s}
		f.collect(err, nil)
		return f.problem()
	}
	return nil
}

// takePart reads one part of a form. In members, for the check by the schema, a
// file is an empty text.
func (s *state) takePart(schema *openapi3.Schema, part *multipart.Part, members map[string]any) error {
	name := part.FormName()
	member := schema.Properties[name]
	isFile := member != nil && member.Value.Format == "binary"
	most := int64(maxText)
	if isFile {
		most = maxFile
	}
	content, err := io.ReadAll(io.LimitReader(part, most+1))
	pointer := string(appendToken([]byte("/"), name))
	switch _, twice := members[name]; {
	case err != nil:
		return malformedForm(s, err)
	case name == "" || len(members) == maxFields || !isFile && !utf8.Valid(content):
		return malformedForm(s, errors.New("a part that is no member"))
	case twice:
		return problem.Of(problem.CodeDuplicateField).WithFields(field(s, pointer, ruleRepeated, ""))
	case isFile && int64(len(content)) > most:
		return fileTooLarge(s)
	case isFile:
		s.form.file, members[name] = content, ""
	case int64(len(content)) > most:
		return problem.Of(problem.CodeValidationFailed).WithFields(field(s, pointer, ruleTooLong, strconv.Itoa(maxText)))
	default:
		s.form.texts[name], members[name] = string(content), string(content)
	}
	return nil
}

func fileTooLarge(s *state) *problem.Error {
	return problem.Of(problem.CodeBodyTooLarge).WithFields(field(s, "/file", ruleFileSize, strconv.Itoa(maxFile)))
}

// malformedForm refuses a form that can't be read. It was too long where more
// came than its length said, or where no length was said.
func malformedForm(s *state, err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fileTooLarge(s)
	}
	return problem.Of(problem.CodeMalformedForm).WithFields(field(s, "", ruleForm, "")).WithErr(err)
}
