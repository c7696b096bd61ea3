"""A network beside a picture archive (PACS): fetches radiographs by DICOMweb, and stores what it made of them."""
