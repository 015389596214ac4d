package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// What a file is for. An image has a URL that stays; the others are temporary
// files, each with a media id.
const (
	PurposeImage       = "image"
	PurposeHeadImage   = "head_image"
	PurposeGoodsCover  = "goods_cover"
	PurposeCertificate = "certificate"
)

// The types of what an upload gives.
const (
	ImageURL = "image_url"
	MediaID  = "media_id"
)

// mediaLife is how long WeChat keeps a temporary file (document 004 §1).
const mediaLife = 3 * 24 * time.Hour

// mediaSpare is how long the media id of an earlier upload must live yet to be
// given out again: its caller is still to use it.
const mediaSpare = time.Hour

// imageUpload is POST /v1/media/images: media/uploadimg (document 001 §3.1).
var imageUpload = register(&Kind{
	Name: "media.upload_image", Subject: "media", Endpoint: wechat.UploadImage, Gives: ImageURL,
	IDs:    func(r wechat.Reply) []ID { return idOf(r, "url", ImageURL) },
	Settle: settleUpload,
})

// temporaryUpload is POST /v1/media/temporary: media/upload (platform.md §10).
var temporaryUpload = register(&Kind{
	Name: "media.upload", Subject: "media", Endpoint: wechat.UploadMedia, Query: wechat.ImageMedia.Query(), Gives: MediaID,
	IDs:    func(r wechat.Reply) []ID { return idOf(r, "media_id", MediaID) },
	Settle: settleUpload,
})

func idOf(r wechat.Reply, member, typ string) []ID {
	var reply map[string]json.RawMessage
	var value string
	if json.Unmarshal(r.JSON(), &reply) != nil || json.Unmarshal(reply[member], &value) != nil || value == "" {
		return nil
	}
	return []ID{{typ, value}}
}

// An Upload is a file for WeChat. It has been looked at.
type Upload struct {
	Purpose string
	File    []byte
}

// A sentFile is what is kept of an Upload: the file is not.
type sentFile struct {
	Purpose string `json:"purpose"`
	SHA256  []byte `json:"sha256"`
}

// A MediaFile is what WeChat gave for a file.
type MediaFile struct {
	dbsqlc.MediaFile
	Replayed bool // an earlier request with the same key uploaded it
}

// Upload gives a file to WeChat, unless the merchant has done so before, for the
// same purpose, and WeChat keeps that one. Errors are those of Do.
func (l *Ledger) Upload(ctx context.Context, r Request, u Upload) (MediaFile, error) {
	sum := sha256.Sum256(u.File)
	body, err := json.Marshal(sentFile{u.Purpose, sum[:]})
	if err != nil {
		return MediaFile{}, err
	}
	kind := temporaryUpload
	if u.Purpose == PurposeImage {
		kind = imageUpload
	}
	var rows []dbsqlc.MediaFile
	// A duplicate does no harm, so several may be under way: one whose process
	// died keeps nobody from sending the file again.
	w := Write{Request: r, Kind: kind, Body: body, File: u.File, Natural: typeid.New().String(),
		Begin: func(*postgres.Batch, *Operation) error { return nil },
		Read: func(b *postgres.Batch, op *Operation) {
			postgres.QueueMany(b, dbsqlc.MediaFileGet, dbsqlc.MediaFileGetParams{TenantID: op.TenantID, OperationID: op.ID}, &rows)
		},
	}
	var done Done
	found := false
	if r.IdempotencyKey != "" && !r.ValidateOnly {
		if done, found, err = l.repeat(ctx, w); err != nil {
			return MediaFile{}, err
		}
	}
	if !found {
		b := l.DB.NewBatch(r.Merchant.TenantID)
		postgres.QueueMany(b, dbsqlc.MediaFileSame, dbsqlc.MediaFileSameParams{TenantID: r.Merchant.TenantID, MerchantID: r.Merchant.ID,
			Purpose: u.Purpose, Sha256: sum[:], Spare: mediaSpare}, &rows)
		switch err := l.DB.Run(ctx, b); {
		case err != nil:
			return MediaFile{}, err
		case len(rows) > 0 && r.ValidateOnly:
			return MediaFile{}, ErrValid
		case len(rows) > 0:
			return MediaFile{MediaFile: rows[0]}, nil
		}
		if done, err = l.Do(ctx, w); err != nil {
			return MediaFile{}, err
		}
	}
	if !done.Committed || len(rows) == 0 { // the outcome is on its way into the database, and into rows
		p := problem.Of(problem.CodeStorageUnavailable)
		if done.Committed { // by whoever took over from a process that died
			p = problem.Of(problem.CodeIdempotencyInFlight)
			p.RetryAfter, p.Retryable = time.Second, true
		}
		p.OperationID = typeid.Format(typeid.Operation, done.Operation.ID)
		return MediaFile{}, p
	}
	return MediaFile{rows[0], done.Replayed}, nil
}

func settleUpload(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var sent sentFile
	if err := op.Unmarshal(&sent); err != nil {
		return err
	}
	row := dbsqlc.MediaFileInsertParams{TenantID: op.TenantID, OperationID: op.ID, MerchantID: op.Merchant.ID, Purpose: sent.Purpose, Sha256: sent.SHA256,
		WechatID: out.ID(op.Kind.Gives), CreatedAt: sentAt(op)}
	if op.Kind.Gives == MediaID {
		// Where WeChat's clock can't be read the file counts as older than it is.
		if reply, err := wechat.Decode[wechat.UploadMediaReply](op.Kind.Endpoint, out.Reply); err == nil && reply.CreatedAt > 0 {
			row.CreatedAt = time.Unix(int64(reply.CreatedAt), 0)
		}
		row.ExpiresAt = new(row.CreatedAt.Add(mediaLife))
	}
	b.Queue(dbsqlc.MediaFileInsert, row)
	return nil
}

// A MediaRef is a member of a request that names a temporary file; an ID "" is
// none.
type MediaRef struct {
	Pointer string
	ID      string
}

// mediaList are the files of a list, by the pointers of its items.
func mediaList(pointer string, ids []string) []MediaRef {
	refs := make([]MediaRef, len(ids))
	for i, id := range ids {
		refs[i] = MediaRef{pointer + "/" + strconv.Itoa(i), id}
	}
	return refs
}

// mediaIDs are the files that a write names.
func mediaIDs(refs []MediaRef) (ids []string) {
	for _, r := range refs {
		if r.ID != "" {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// queueMedia refuses the batch where a file that the write names has expired.
func queueMedia(b *postgres.Batch, m authorizer.Merchant, refs []MediaRef) {
	if ids := mediaIDs(refs); ids != nil {
		b.Queue(dbsqlc.MediaFilesRequired, dbsqlc.MediaFilesRequiredParams{TenantID: m.TenantID, MerchantID: m.ID, MediaIds: ids})
	}
}

// mediaExpired says which of the files have, after the database refused a write
// for them.
func (l *Ledger) mediaExpired(ctx context.Context, m authorizer.Merchant, refs []MediaRef, cause error) error {
	var rows []dbsqlc.MediaFile
	b := l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.MediaFilesExpired, dbsqlc.MediaFilesExpiredParams{TenantID: m.TenantID, MerchantID: m.ID, MediaIds: mediaIDs(refs)}, &rows)
	if err := l.DB.Run(ctx, b); err != nil {
		return err
	}
	var fields []problem.Field
	for _, ref := range refs {
		for _, row := range rows {
			if row.WechatID == ref.ID {
				fields = append(fields, problem.Field{Pointer: ref.Pointer, Code: problem.CodeMediaExpired,
					Detail: "expired at " + row.ExpiresAt.UTC().Format(time.RFC3339)})
				break
			}
		}
	}
	return problem.Of(problem.CodeMediaExpired).WithFields(fields...).WithErr(cause)
}
