<?php
// What the farm's script did, with GD: /resize.php?src=/PATH&w=320, nothing enlarged.
$root = getenv('IMAGES') ?: $_SERVER['DOCUMENT_ROOT'];
$path = realpath($root . '/' . ltrim($_GET['src'], '/'));
if ($path === false || strncmp($path, $root . '/', strlen($root) + 1) !== 0) {
    http_response_code(404);
    exit;
}
[$width, $height, $type] = getimagesize($path);
$readers = [
    IMAGETYPE_JPEG => 'imagecreatefromjpeg', IMAGETYPE_PNG => 'imagecreatefrompng',
    IMAGETYPE_WEBP => 'imagecreatefromwebp',
];
$source = $readers[$type]($path);
$w = min((int) $_GET['w'], $width);
$h = max(1, (int) round($height * $w / $width));
$quality = (int) ($_GET['q'] ?? 80);
$result = imagecreatetruecolor($w, $h);
imagealphablending($result, false);
imagesavealpha($result, true);
imagecopyresampled($result, $source, 0, 0, 0, 0, $w, $h, $width, $height);
$types = [IMAGETYPE_JPEG => 'jpeg', IMAGETYPE_PNG => 'png', IMAGETYPE_WEBP => 'webp'];
$format = $_GET['fmt'] ?? $types[$type];
header("Content-Type: image/$format");
if ($format === 'jpeg') {
    imagejpeg($result, null, $quality);
} elseif ($format === 'png') {
    imagepng($result);
} elseif ($format === 'webp') {
    imagewebp($result, null, $quality);
} else {
    imageavif($result, null, $quality, 8);
}
