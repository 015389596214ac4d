package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// UploadImage implements POST /v1/media/images.
func (s *Server) UploadImage(ctx context.Context, req oapi.UploadImageRequestObject) (oapi.UploadImageResponseObject, error) {
	f, err := s.upload(ctx, "uploadImage", req.Params.MerchantID, req.Params.IdempotencyKey, ledger.PurposeImage)
	if err != nil {
		return nil, err
	}
	return oapi.UploadImage201JSONResponse{
		Body: oapi.Image{URL: f.WechatID, Sha256: hex.EncodeToString(f.Sha256)},
		Headers: oapi.UploadImage201ResponseHeaders{IdempotencyReplayed: replayed(f.Replayed),
			OperationID: new(typeid.Format(typeid.Operation, f.OperationID))}}, nil
}

// UploadTemporaryMedia implements POST /v1/media/temporary.
func (s *Server) UploadTemporaryMedia(ctx context.Context, req oapi.UploadTemporaryMediaRequestObject) (oapi.UploadTemporaryMediaResponseObject, error) {
	f, err := s.upload(ctx, "uploadTemporaryMedia", req.Params.MerchantID, req.Params.IdempotencyKey, stateOf(ctx).form.texts["purpose"])
	if err != nil {
		return nil, err
	}
	return oapi.UploadTemporaryMedia201JSONResponse{
		Body: oapi.TemporaryMedia{MediaID: f.WechatID, CreatedAt: f.CreatedAt.UTC(), ExpiresAt: f.ExpiresAt.UTC(), Sha256: hex.EncodeToString(f.Sha256)},
		Headers: oapi.UploadTemporaryMedia201ResponseHeaders{IdempotencyReplayed: replayed(f.Replayed),
			OperationID: new(typeid.Format(typeid.Operation, f.OperationID))}}, nil
}

// upload gives the file of the request's form to WeChat. The edge has read the
// form, and the contract's rules hold of its texts.
func (s *Server) upload(ctx context.Context, operation string, merchant, key *string, purpose string) (ledger.MediaFile, error) {
	m, err := s.acting(ctx, merchant)
	if err != nil {
		return ledger.MediaFile{}, err
	}
	u := ledger.Upload{Purpose: purpose, File: stateOf(ctx).form.file}
	endpoint, formats, most := wechat.UploadMedia, []string{"jpeg", "png"}, maxSide
	switch purpose {
	case ledger.PurposeImage:
		endpoint, formats = wechat.UploadImage, []string{"jpeg"} // document 001 §3.1
	case ledger.PurposeGoodsCover:
		most = maxCoverSide
	}
	if err := pictureRules(ctx, u.File, most, formats...); err != nil {
		return ledger.MediaFile{}, err
	}
	if err := s.Authorizer.Check(m, endpoint); err != nil {
		return ledger.MediaFile{}, err
	}
	sum := sha256.Sum256(u.File)
	r, err := request(ctx, m, key, operation, purpose, sum[:])
	if err != nil {
		return ledger.MediaFile{}, err
	}
	return s.Ledger.Upload(ctx, r, u)
}
